# SPDX-License-Identifier: Apache-2.0
"""One module a command, found by name.

A command has `HELP: str`, one line; a docstring, which is its --help; `add_arguments(parser)`; and
`run(args) -> int`, the exit status. It may raise ResultError on input that it cannot use.
`args.command_line` is the whole command, for what is written to say how it was made.
"""
