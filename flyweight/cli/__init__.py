"""The command line: one module per command, imported when that command runs.

main.py      the program: options before the command, errors, exit codes
options.py   the options commands share, and what they mean together
solve.py compare.py chat.py demo.py bench.py list.py models.py doctor.py   the commands
ask.py       questions from arguments, pipes and files
progress.py  live display while a search runs, folded from its events
render.py    results as text and as JSON, with nothing a terminal would obey
stopping.py  Ctrl-C and SIGTERM: first what is known so far, then at once
"""
