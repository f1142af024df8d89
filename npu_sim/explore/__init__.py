"""The what-if page: a server on this machine that answers a browser, and the page itself.

Imports what-ifs, reports and pictures; computes no figure of its own. Read `asked.py` first, then
`answers.py` and `server.py`.
"""
