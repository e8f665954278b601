"""Training: (state, batch) to state, from the first check to the results. `run.py` shows the whole run on one page.

Promises: errors are found before the first step where possible; a run that was stopped resumes and ends bit for bit as
it would have without the stop; adding a stage means adding an objective, without editing the loop.
"""
