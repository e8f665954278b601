"""Training: (state, batch) to state, from the first check to the results. `run.py` is the walk, on one page.

Promises: what can be wrong is found before the first step; a run that was stopped resumes and ends bit for bit as it
would have ended; adding a stage is a new objective and does not edit the loop.
"""
