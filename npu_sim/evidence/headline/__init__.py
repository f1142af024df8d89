"""Published figures of Mu and ReDrafter beside simulated ones; none of them is in a chip's fit.

Imports the rooms that `evidence` may import, and nothing of the fits beside it.
"""
