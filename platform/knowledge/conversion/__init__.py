"""Files of every kind to sections of text, in a process that a hostile file may break without breaking anything else.

`formats` says what is read; `html`, `pdf`, `word`, `table` and `archive` read; `child` is the process, `process` its
owner. Nothing here knows Django: the child has neither database nor secrets.
"""
