"""A campaign of random faults: whatever happens to a run, it ends as if nothing had happened.

Real runs of `python -m charlstm train` are killed, signalled, starved of disk space and read from
meanwhile, and files are damaged. Each run then ends, and is compared with an undisturbed one.
"""
