"""Every command of README.md, docs/ and examples/ is run, page by page, on a real stack.

What a page may say to this harness, in HTML comments that stand right before a fenced block:

``<!-- not run: REASON -->``   not run, only checked (shell syntax, names of commands, options,
                              make targets and compose services)
``<!-- run: REMARKS -->``      run, with commas between remarks. `status N`: it ends with N (`status
                              1 0`: one for each command); `figures vary`: in the output that is
                              shown, any number may stand for any other
``<!-- output -->``            the block (text, json, ..) is what the commands before it print;
                              `<!-- output: figures vary -->`: as above
``<!-- setup``                 commands that a reader is not shown, up to ``-->``

Fences: `bash`, `console` (commands after ``$ ``, then what they print) and `python` are run. All
others are not commands; a fence without a language is refused. In output ``..`` and ``...`` stand
for anything, ids, hashes and times for any other; white space is not compared.
"""
