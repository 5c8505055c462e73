"""Texts for prompts.py: written ones, the pieces of random ones, and the examples of the web UI's doctests."""

from __future__ import annotations

# stable-diffusion-webui, modules/prompt_parser.py, doctests of get_learned_conditioning_prompt_schedules (10 steps) and
# parse_prompt_attention.
DOCTESTS: dict[str, list] = {
    "schedule": [
        ("test", [[10, "test"]]),
        ("a [b:3]", [[3, "a "], [10, "a b"]]),
        ("a [b: 3]", [[3, "a "], [10, "a b"]]),
        ("a [[[b]]:2]", [[2, "a "], [10, "a [[b]]"]]),
        ("[(a:2):3]", [[3, ""], [10, "(a:2)"]]),
        ("a [b : c : 1] d", [[1, "a b  d"], [10, "a  c  d"]]),
        ("a[b:[c:d:2]:1]e", [[1, "abe"], [2, "ace"], [10, "ade"]]),
        ("a [unbalanced", [[10, "a [unbalanced"]]),
        ("a [b:.5] c", [[5, "a  c"], [10, "a b c"]]),
        ("((a][:b:c [d:3]", [[3, "((a][:b:c "], [10, "((a][:b:c d"]]),
        ("[a|(b:1.1)]", [[step, "a" if step % 2 else "(b:1.1)"] for step in range(1, 11)]),
        ("[fe|]male", [[step, "female" if step % 2 else "male"] for step in range(1, 11)]),
        ("[fe|||]male", [[step, "female" if step % 4 == 1 else "male"] for step in range(1, 11)]),
    ],
    "attention": [
        ("normal text", [["normal text", 1.0]]),
        ("an (important) word", [["an ", 1.0], ["important", 1.1], [" word", 1.0]]),
        ("(unbalanced", [["unbalanced", 1.1]]),
        (r"\(literal\]", [["(literal]", 1.0]]),
        ("(unnecessary)(parens)", [["unnecessaryparens", 1.1]]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ["a ", 1.0], ["house", 1.5730000000000004], [" ", 1.1], ["on", 1.0], [" a ", 1.1], ["hill", 0.55],
                [", sun, ", 1.1], ["sky", 1.4641000000000006], [".", 1.1],
            ],
        ),
    ],
}  # fmt: skip

A1111 = [
    "", " ", "a red circle", "(a red circle)", "[a red circle]", "((red)) [[blue]]", "(red:1.3) circle", "(red:-0.5)",
    "(red : 1.2 ) x", "(red:1.2", "red:1.2)", "(a (b:1.5) c:0.8)", "a) b] c", "(a [b) c]", r"a \(b\) \[c\] \\ \d \\", "\\",
    "a BREAK b", "BREAK", "BREAK BREAK", "a BREAK", "aBREAK b", "a\nBREAK\nb", "(a BREAK b)", "(a BREAK b:1.2) BREAK c", "BREAKING",
    "(a:1.2.3)", "(a:.)", "(a:+.5)", "(a:5.)", "a:b", "::", "(:1.2)", "()", "[]", "(())", "[a:b:0.5]", "[a::0.3] b", "[:a:0.25]",
    "[a:b:3]", "[a:b:0]", "[a:b:-1]", "[a:b:100]", "[a:b:1.0]", "[a:b:1.5]", "[a:b:+2]", "[a:b:1e0]", "[a:b:.1e1]", "[a:b:c:3]",
    "[a:b]", "[a:3", "[a:b:3 ]", "[a:b: 3.]", "[3:4]", "[3:4:5]", "[::2]", "[:2]", "[a|b]", "[a|b|c] d", "[|]", "[a|[b:c:5]]",
    "[[a|b]:c:4]", "[a|b:3]", "a | b", "(a|b)", "([a|b]:1.2)", "[(a:1.1)|b:3]", "[a:(b:1.2):3]", "[a:(b:3]", "[a:b]:3]", "[a (b] c:3)",
    r"[a\:b:c:3]", r"[a\|b|c]", "\\\n[a:b:3]", "[a:b:3]\\", "[[a:b:2]|c] [d:e:7]", "[a:[b:[c:[d:1]:2]:3]:4]", "a, b, (c, d:0.9), e",
    "photo of a [man|woman:0.5] in [red:blue:0.4], (sharp:1.2)", "<|endoftext|> a", "a <|startoftext|> (b)",
    "caf\u00e9 (\u732b:1.1) \u0301 [x:\u00e9:4]", "(a:1.1)(b:1.1)(c:1.2)", "((a:1.1) b:1.1)",
]  # fmt: skip
A1111_PIECES = [
    "(", "(", ")", ")", "[", "[", "]", "]", ":", ":", "|", "\\", " ", " ", ", ", "a", "red", "cat ", "BREAK", " BREAK ", "1.2",
    "0.5", "3", ":1.3)", ":.5]", ":3]", ":0.7:", "[a:b:4]", "(c:1.1)", "[d|e]", "\n", "-", "+", ".", "AN", "\u00e9", "\u732b",
    "x:y", "[f::2]", "\\(", "\\]",
]  # fmt: skip

COMPEL = [
    "", " ", "a red circle", "red+ circle", "red++ circle", "red- circle", "red--- circle", "(red circle)+", "(red circle)1.3", "(red)0.5",
    "(red)0 circle", "(red circle)1.", "(red).5", "(red)-0.5", "(red)+1.5", '"red circle"++ on blue', '"red circle"0.7', "a (b (c)++ d)--",
    "((a)1.2 b)1.3", "((a)++)--", "(a)", "()", "()++", "a ()", '""', '""+ a', '"" ""', "( a , b . c )1.1", "(a = b)", "(a - b)", "(a+b)", "a+b c+",
    "well-known well-known- x-ray", "+a -b", "+ -", "++", "a + b", "a ++", "(a) ++", "(a)\n++", "a,b,c", ",,a", "a+,b-", "a.b++", "a++b", "a++.", "(a",
    "a)", "(a b", "((a)", "(a))", r"\(a\) b", r"(\(a\))1.2", r"a\+ b", r"a\++", r"\"a\" b", r'"a \"b\" c"+', r'"a \" b"', r'"a\"', '"a', 'a"b"', '"a\nb"', r'"a\tb"++',
    r'"a\fb"++', r"\\\(a", "(a).attend(1.2)", "(a).attend(++)", "a.attend(--) b", "(a) .attend( 0.5 )", "(a).attend(-1.5)", "(a).attend()", "a.attend(+",
    '("a b" c)1.2', '"(a b)1.2 c"0.5', "a (b)0.5 c (d)0.9 e", "(a)0.5(b)0.5", "a- b- c-", "-1", "a-5", "3.5", "(3.5)2", "a=b", "a=b+", "(a b)1.2.", "(a b)1.2,", "(a)1.2b",
    "caf\u00e9+ (\u732b)1.1 \u0301- a\u00a0b+", "(a\u00a0)1.1", "the (quick)0.8 brown fox++, jumps. (over the lazy dog)1.4", "a\tb+\tc", "<|endoftext|>+ a", "(<|startoftext|> a)0.5",
    "a (very (deeply (nested (text)+)+)+)+", "big (a, b, c)1.1 d.", "it's 'quoted'+ here's",
]  # fmt: skip
COMPEL_PIECES = [
    "(", "(", ")", ")", '"', '"', "+", "++", "-", "--", "1.2", "0.5", ".5", "2", " ", " ", " ", ",", ".", "=", "a", "red", "cat ", "x-y", "\\", '\\"', "\\(",
    "\\)", "\n", "\t", ".attend(", "(a b)1.1", "b++", '"c d"-', "\u00e9", "\u732b", ")0.9", ")+", '"+', "3", "\\t",
]  # fmt: skip

_WORDS = "a red circle on the blue background with small green squares and one very large yellow triangle near them".split()
_RUN = [_WORDS[at * at % len(_WORDS)] for at in range(400)]


def _commas(every: int, count: int) -> str:
    return " ".join(word + ("," if at % every == every - 1 else "") for at, word in enumerate(_RUN[:count]))


# Longer than a window, with and without places to cut at; no form of any syntax but weights that both have.
LONG = [
    *(" ".join(_RUN[:count]) for count in (60, 73, 74, 75, 76, 77, 80, 150, 151, 300)),
    *(_commas(every, count) for every in (3, 7, 19, 20, 21, 22, 40) for count in (70, 120, 260)),
    *(_commas(9, count).replace("circle,", "circle.") for count in (90, 200, 330)),
    *(", ".join(_RUN[:count]) for count in (37, 38, 39, 80)),
    ". ".join(_RUN[:90]), "; ".join(_RUN[:90]), "abcdefghij" * 60, "." * 80, ", " * 90, "!" * 200,
    *(" ".join(f"({word})" if at % 5 == 0 else word for at, word in enumerate(_RUN[:count])) for count in (80, 160)),
    *(" ".join(f"(red {word}, blue)" for word in _RUN[:count]) for count in (25, 60)),
]  # fmt: skip
