"""The service behind ``bnpipe serve``: beliefs on request, from versions that change under it safely.

A supervisor (`server`) keeps two kinds of processes. The follower (`follower`) alone speaks with MLflow: it downloads
versions into a folder and writes down which of them reigns (`situation`). Workers (`worker`) share nothing but the
port: each holds compiled versions (`shelf`), answers from them (`service`, `batching`, `answering`), and logs each
answer (`bnpipe.answers`) before it leaves. HTTP is only a coat (`app`).
"""
