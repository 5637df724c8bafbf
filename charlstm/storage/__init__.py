"""Run folders and texts in object stores: gs://BUCKET/runs/mine.

An object store has no folders, renames or appends. So a run folder in one is worked on in a copy on
this machine, where every promise of a file system holds; what changes there is sent on. The rest of
charlstm sees local paths only, and calls the functions of `paths`, which do nothing for a folder
that is no copy. fsspec speaks to the stores, and is loaded for addresses only.
"""
