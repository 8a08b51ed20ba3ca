"""The command line. Every command has a module, imported at start: what is heavy is imported where it is needed.

main.py      the program: the commands by name, options before the command, errors, exit codes
options.py   the options commands share, and what they mean together
docs.py      the reference page, made of the help texts

Questions asked here:

solve.py     one question, or a file of them
compare.py   several strategies on one question
chat.py      a conversation
serve.py     OpenAI's interface
demo.py      five real questions
ask.py       questions from arguments, pipes and files
warm.py      a model in memory with everything that watches it
progress.py  live display while a search runs, folded from its events
render.py    results as text and as JSON, with nothing a terminal would obey
stopping.py  Ctrl-C and SIGTERM: first what is known so far, then at once

Runs on record:

bench.py     `bench`: tasks run by strategies
carrying.py  runs carried out, here or on a cluster
spread.py    the option `--ray`
summaries.py what `bench` shows of runs
runs.py      the commands of `bench` that read
bench_calibrate.py  `bench calibrate`: confidence maps
folder.py    the folder of runs, and which of them are meant
recorded.py  what the commands that read runs print
report.py    what runs say, in the terminal or as a file
view.py      runs as a page in the browser

What is there, and what is best here:

list.py      strategies, verifiers, policies and tasks
models.py    model files
doctor.py    this machine; doctor_endpoint.py an endpoint
calibrate.py `calibrate`: what `auto` goes by
plan.py      a big model once or a small one many times
train.py     `train-verifier`: a verifier of one's own
"""
