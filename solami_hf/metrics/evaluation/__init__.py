"""`solami evaluate`: all figures of a results folder, with intervals, sanity rows and controls.

solami evaluate pretrain RESULTS...     the six tasks
solami evaluate chat RESULTS...         dialogues, a model or several side by side
solami evaluate bench ENTRY...          entries to the benchmark that anyone can enter
"""
