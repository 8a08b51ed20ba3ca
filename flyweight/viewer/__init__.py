"""The viewer: runs, questions and searches as one page that works from a server and from a file.

page.py       the page: shell, policy, and the file that holds everything
records.py    what a store says, as the page reads it
searches.py   one search as events that the page folds, recorded or live
site.py       paths to answers, the same for every server
asking.py     questions asked in the page and the searches people watch
local.py      a small server for one machine, of the standard library
drawing.py    the same tree and votes without a script, for notebooks
animation.py  a search as one SVG that moves
export.py     a store as one file
assets/       the built bundle; its source is viewer-src/ of the repository

It reads; nothing it does writes a store. See docs/viewer.md.
"""
