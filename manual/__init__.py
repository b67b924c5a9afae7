"""The manual pages and the shells' completion, made of what the program itself says.

    python -m manual      (make manual) writes them into share/, which the wheel brings along

`*.in` beside this file are the pages' prose, in mdoc(7). What the program knows stands there as
@NAME@ alone on a line: the commands with their options, the configuration's keys, sendmail's flags.
"""
