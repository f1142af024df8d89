"""What a user gives, understood whole or refused: files (`reading.py`), numbers, texts.

Imports errors, and `memory.py` for arrays. Files that are written are planned and made whole by
`mu_ref/files.py`.
"""
