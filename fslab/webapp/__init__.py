"""The whole lab in a browser: a module a step, over the same package that the command line uses.

From the bottom up: ``settings`` (every limit), ``folders`` (a visitor's own place), ``uploads`` (what visitors send),
``records`` and ``worker`` (a job on disk, and its child process), ``jobs`` (the line they wait in), ``limiter``,
``guard`` and ``launch`` (the hardened server); above them ``words``, ``controls``, a module for each step, and
``page``. Nothing here defines a stage a second time: heavy work is the command line's, started as a child process.
"""
