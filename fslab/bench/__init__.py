"""The quality benchmark: rendered pairs whose right answer is known, trained and scored by one command.

`case` says what is rendered, `baselines` and `classic` what a swap is compared with, `curve` trains and converts,
`quality` runs a tier and keeps what is done, `page` shows it.
"""
