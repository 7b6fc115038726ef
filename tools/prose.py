"""Finding numbers that were typed into prose and should have been bound to an output.

What is markup is taken away first: code, mathematics, roles, addresses, options of directives,
footnotes and the years of citations. A number left standing by itself is a fault; one that
belongs to a name (GPT-2, H100, int8, 8-bit, 95th, Keras 3) is not.
"""

from __future__ import annotations

import re

HOLE = "\ufffc"  # stands where markup was, so that its neighbours do not join

# Directives whose body is not prose, and directives whose argument is not.
LITERAL_BODY = {"bibliography", "code", "code-block", "code-cell", "glue:figure", "glue:math"}
LITERAL_BODY |= {"include", "literalinclude", "math", "mermaid", "eval-rst", "raw", "toctree"}
NO_TITLE = LITERAL_BODY | {"figure", "glue", "image", "solution", "solution-start"}

# Names that carry a number behind a space.
NUMBERED_NAMES = (
    "CUDA|DeepSeek|GB/T|Gemma|IEEE|ISO|ISO/IEC|ISO/IEC TS|ISO/IEC TR|Jupyter Book|Keras|Llama"
    "|NIST AI|NumPy|Phi|Python|Qwen|RFC|RTX|TensorFlow"
)
_NAMED = re.compile(rf"\b(?:{NUMBERED_NAMES})(?:[ \u00a0]\d[\w.\-]*)+")

_FENCE = re.compile(
    r"^[\s>]*(?P<mark>`{3,}|~{3,}|:{3,})\s*(?:\{(?P<name>[\w:.-]+)\})?(?P<rest>.*)$"
)
_OPTION = re.compile(r"^[\s>]*:[\w-]+:( .*)?$")
_TEXT = r"(?:(?!\n\s*\n).)+?"  # of one paragraph
_YEAR = r"(?:1[89]|20)\d\d[a-z]?"

_MARKUP = [
    re.compile(pattern, re.MULTILINE | re.DOTALL)
    for pattern in (
        r"<!--.*?-->",
        r"^%[^\n]*$",  # MyST comment
        r"^\([\w:.-]+\)=\s*$",  # target
        r"^\[\^[^\]\n]+\]:[^\n]*(?:\n(?:[ ]{2,}|\t)[^\n]*)*",  # footnote
        r"\[\^[^\]\n]+\]",
        r"^\s*\[[^\]\n]+\]:\s*\S+[^\n]*$",  # address of a link, given apart
        r"\$\$.*?\$\$",
        r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}",
        rf"\{{[\w:.+-]+\}}(`+){_TEXT}\1",  # role
        rf"(?<!`)(`+)(?!`){_TEXT}(?<!`)\1(?!`)",  # code
        r"(?<=\])\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?:\s+\"[^\"]*\")?\)",  # address of a link
        r"<[a-z]+:[^>\s]+>",
        r"https?://\S+",
        r"</?[A-Za-z][^>\n]*>",
        r"&#?\w+;",
        r"^[\s>]*\d+[.)](?=\s)",  # marker of an ordered list
        rf"\({_YEAR}(?:[,;]\s*{_YEAR})*\)",
        rf"\([A-Z][^()\d]*[,\s]\s*{_YEAR}(?:;\s*[A-Z][^()\d]*[,\s]\s*{_YEAR})*\)",
        rf"\bet al\.,?\s+{_YEAR}",
    )
]
_INLINE_MATH = re.compile(r"(?<![\\$])\$(?!\s)((?:\\.|[^$\\])+?)(?<!\s)\$(?!\d)", re.DOTALL)
# A measured-looking number dressed as mathematics; `$0$` and `$n = 2$` are mathematics.
_BARE_IN_MATH = re.compile(r"\s*[\d.,]*\d\s*(?:\\?%|\\times)\s*|\s*\d+\.\d+\s*")

_NUMBER = re.compile(
    r"(?<!\w)(?<!\w[-–.,'’])"  # not inside a name
    r"\d+(?:[.,\u202f]\d+)*(?:[eE][+-]?\d+)?"
    r"(?P<suffix>\w*)(?P<joined>-[A-Za-z]+)?\s?[%×‰]?"
)
# Letters that make a quantity of a number; other letters make it a name, as in 2D or 95th.
_UNIT = re.compile(
    r"(?:x\d*|[munµ]?s|h|min|[kKMBGT]|[kKMGT]i?B|[kKMGTP]?(?:FLOPs?|W|Hz)|pp|px|fold)?"
)
_JOINED_NAMES = frozenset({"-bit", "-D"})


def find_typed_numbers(markdown: str) -> list[str]:
    """Returns the numbers typed into the prose of a Markdown cell, each with its surroundings.

    Example:
        >>> find_typed_numbers("GPT-2 reaches {glue:text}`accuracy`, {cite}`x2016`.")
        []
        >>> find_typed_numbers("It is 3.5× faster.")
        ['3.5×  in “It is 3.5× faster.”']
    """
    prose = _drop_fences(markdown)
    faults = []
    for pattern in _MARKUP:
        prose = pattern.sub(HOLE, prose)
    for match in _INLINE_MATH.finditer(prose):
        if _BARE_IN_MATH.fullmatch(match[1]):
            faults.append(_describe(prose, match))
    prose = _INLINE_MATH.sub(HOLE, prose)
    prose = _NAMED.sub(HOLE, prose)
    for match in _NUMBER.finditer(prose):
        is_name = not _UNIT.fullmatch(match["suffix"]) or match["joined"] in _JOINED_NAMES
        if not is_name:
            faults.append(_describe(prose, match))
    return faults


def _describe(prose: str, match: re.Match[str]) -> str:
    around = prose[max(0, match.start() - 25) : match.end() + 25].replace(HOLE, "…")
    return f"{match[0].strip()}  in “{' '.join(around.split())}”"


def _drop_fences(markdown: str) -> str:
    """Takes away fenced code and directives' options; keeps titles and bodies that are prose."""
    kept: list[str] = []
    open_marks: list[str] = []  # of the directives around the current line
    literal = ""  # mark of the literal block around it
    in_options = in_block = False  # options come as `:key: value` or between two `---`
    for line in markdown.splitlines():
        fence = _FENCE.match(line)
        if literal:
            if _closes(fence, literal):
                literal = ""
        elif fence and open_marks and _closes(fence, open_marks[-1]):
            open_marks.pop()
        elif fence and (fence["name"] is None or fence["name"] in LITERAL_BODY):
            literal = fence["mark"]
        elif fence:
            open_marks.append(fence["mark"])
            in_options, in_block = True, False
            kept.append("" if fence["name"] in NO_TITLE else fence["rest"])
        elif in_options and line.strip() == "---":
            in_options, in_block = not in_block, not in_block
        elif in_options and (in_block or _OPTION.match(line)):
            pass
        else:
            in_options = False
            kept.append(line)
    return "\n".join(kept)


def _closes(fence: re.Match[str] | None, mark: str) -> bool:
    if fence is None or fence["name"] or fence["rest"].strip():
        return False
    return fence["mark"][0] == mark[0] and len(fence["mark"]) >= len(mark)
