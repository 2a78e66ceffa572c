"""Finds the single faults that tools/mutate puts into C++ code."""

import collections
import re

# A fault: text[begin:end] becomes `new`. `kind` is "operator", "constant", "condition" or
# "statement".
Mutation = collections.namedtuple("Mutation", "kind begin end new")

# `kind` is a group of the expression below.
Token = collections.namedtuple("Token", "kind text begin end")

TOKENS = re.compile(
    r"""(?P<skip>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<directive>(?<![^\n])[ \t]*\#(?:\\\n|[^\n])*)
    |(?P<string>(?:u8|[uUL])?R"(?P<mark>[^()\s\\]*)\(.*?\)(?P=mark)"|(?:u8|[uUL])?"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<number>\.?[0-9](?:[eEpP][+-]|'?[\w.])*)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<symbol><<=|>>=|<=>|->\*|\.\.\.|::|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|.)""", re.DOTALL | re.VERBOSE)

# Operators between two operands. clang-format puts a space on both sides of these, and not on both
# sides of the brackets of templates, of references and of signs.
BINARY = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==",
    "+": "-", "-": "+", "*": "+", "/": "*", "%": "+",
    "&&": "||", "||": "&&", "&": "|", "|": "&", "^": "|", "<<": ">>", ">>": "<<",
    "+=": "-=", "-=": "+=", "*=": "+=", "/=": "*=", "&=": "|=", "|=": "&=", "<<=": ">>=", ">>=": "<<=",
}  # yapf: disable
UNARY = {"++": "--", "--": "++"}

ASSIGNING = {"=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="}
OPENING = {"(": ")", "[": "]", "{": "}"}
# What these take is text for a person, or is checked by the compiler, or ends the program if it is
# wrong.
MESSAGES = re.compile(r"\w*(Error|Status|StrCat|StrFormat|StrJoin)|static_assert|GW_CHECK\w*|alignas|sizeof")
WORDS_OF_TYPES = {"namespace", "struct", "class", "enum", "union"}
# A call or an assignment begins with none of these.
NOT_STATEMENTS = {
    "return", "using", "typedef", "template", "static_assert", "case", "default", "goto", "if", "for", "while", "switch",
    "do", "else", "public", "private", "protected", "operator", "throw", "delete",
}  # yapf: disable


def tokens_of(text):
    return [
        Token(match.lastgroup if match.lastgroup != "mark" else "string", match.group(), match.start(), match.end())
        for match in TOKENS.finditer(text)
        if match.lastgroup not in ("skip", "directive")
    ]


def partners_of(tokens):
    """Maps the position of each bracket to that of its partner. Brackets without one are left out."""
    partners, stack = {}, []
    for i, token in enumerate(tokens):
        if token.kind != "symbol":
            continue
        if token.text in OPENING:
            stack.append(i)
        elif token.text in OPENING.values():
            if stack and OPENING[tokens[stack[-1]].text] == token.text:
                partners[i] = stack.pop()
                partners[partners[i]] = i
    return partners


def is_spaced(text, token):
    return text[token.begin - 1:token.begin].isspace() and text[token.end:token.end + 1].isspace()


def changed_constant(text):
    """Another number for a literal, or None for one that has no other."""
    if re.fullmatch(r"[0-9]+", text) and (text == "0" or text[0] != "0"):
        return str(int(text) + 1)
    plain = text.replace("'", "")
    is_real = "." in plain or re.search(r"p" if plain[:2] in ("0x", "0X") else r"[eE]", plain)
    if not is_real:
        return "(%s + 1)" % text
    digits = re.sub(r"[eEpP].*", "", plain[2:] if plain[:2] in ("0x", "0X") else plain)
    return ("(%s * 2)" if re.search(r"[1-9a-fA-F]", digits.rstrip("fFlL")) else "(%s + 1)") % text


def skipped(tokens, partners):
    """The positions of tokens whose change says nothing about the tests."""
    result = set()
    for i, token in enumerate(tokens[:-1]):
        following = tokens[i + 1].text
        if token.kind == "name" and MESSAGES.fullmatch(token.text) and following == "(" and i + 1 in partners:
            result.update(range(i, partners[i + 1] + 1))
        if token.text == "[" and following == "[" and i in partners:  # An attribute: [[nodiscard]].
            result.update(range(i, partners[i] + 1))
        if token.text == "template" and following == "<":
            depth, j = 0, i + 1
            while j < len(tokens):
                depth += {"<": 1, ">": -1, ">>": -2}.get(tokens[j].text, 0)
                if depth <= 0:
                    break
                j += 1
            result.update(range(i, j + 1))
    return result


def blocks(tokens, partners):
    """For each token, whether the braces around it hold statements."""
    result, stack, start = [], [False], 0
    for i, token in enumerate(tokens):
        result.append(stack[-1])
        if token.kind != "symbol":
            continue
        if token.text == "{" and i in partners:
            before = tokens[start:i]
            is_type = any(t.text in WORDS_OF_TYPES for t in before) and not any(t.text == "(" for t in before)
            stack.append(not is_type)
        elif token.text == "}" and i in partners:
            stack.pop()
        if token.text in ("{", "}", ";"):
            start = i + 1
    return result


def statement_end(tokens, partners, begin):
    """The position of the semicolon if a call, an assignment or a jump begins here, else None.

    A declaration has two names side by side, or the brackets of a template, where a call has none.
    """
    i = begin
    if tokens[i].text in ("continue", "break"):
        return i + 1
    if tokens[i].text in UNARY or tokens[i].text == "*":
        i += 1
    if tokens[i].text == "(" and i in partners:
        i = partners[i] + 1
    elif tokens[i].kind == "name" and tokens[i].text not in NOT_STATEMENTS:
        i += 1
    else:
        return None
    while i < len(tokens):
        if tokens[i].text in ("::", ".", "->") and i + 1 < len(tokens) and tokens[i + 1].kind == "name":
            i += 2
        elif tokens[i].text in ("(", "[") and i in partners:
            i = partners[i] + 1
        else:
            break
    if i == begin + 1 and tokens[begin].kind == "name" and tokens[i].text not in ASSIGNING and tokens[i].text not in UNARY:
        return None  # A name alone does nothing.
    if i < len(tokens) and tokens[i].text in UNARY:
        i += 1
    elif i < len(tokens) and tokens[i].text in ASSIGNING:
        while i < len(tokens) and tokens[i].text not in (";", "}", ")"):
            i = partners.get(i, i) + 1
    return i if i < len(tokens) and tokens[i].text == ";" else None


def begins_statement(tokens, partners, i):
    if i == 0 or tokens[i - 1].text in (";", "{", "}", "else"):
        return True
    # The one statement of an if or a loop.
    if tokens[i - 1].text != ")" or i - 1 not in partners:
        return False
    opening = partners[i - 1]
    return opening > 0 and tokens[opening - 1].text in ("if", "for", "while")


def condition_of(tokens, partners, i):
    """The first and the last position of the condition of the `if` or `while` at i, or None."""
    opening = i + 1
    if tokens[opening].text == "constexpr":
        opening += 1
    if tokens[opening].text != "(" or opening not in partners:
        return None
    first = j = opening + 1
    while j < partners[opening]:
        if tokens[j].text == ";":
            first = j + 1
        j = partners.get(j, j) + 1
    return first, partners[opening] - 1


def find_mutations(text):
    """All single faults for a text in C++, in its order."""
    tokens = tokens_of(text)
    partners = partners_of(tokens)
    without, holds_statements = skipped(tokens, partners), blocks(tokens, partners)
    result = []
    for i, token in enumerate(tokens):
        if holds_statements[i] and begins_statement(tokens, partners, i):
            end = statement_end(tokens, partners, i)
            if end is not None and not MESSAGES.fullmatch(token.text):
                result.append(Mutation("statement", token.begin, tokens[end].begin, ""))
        if i in without:
            continue
        if token.kind == "symbol" and token.text in BINARY and is_spaced(text, token):
            result.append(Mutation("operator", token.begin, token.end, BINARY[token.text]))
        elif token.kind == "symbol" and token.text in UNARY:
            result.append(Mutation("operator", token.begin, token.end, UNARY[token.text]))
        elif token.kind == "number":
            result.append(Mutation("constant", token.begin, token.end, changed_constant(token.text)))
        elif token.text in ("true", "false"):
            result.append(Mutation("constant", token.begin, token.end, "false" if token.text == "true" else "true"))
        elif token.text in ("if", "while") and i + 2 < len(tokens):
            condition = condition_of(tokens, partners, i)
            if condition is not None and condition[0] <= condition[1]:
                begin, end = tokens[condition[0]].begin, tokens[condition[1]].end
                result.append(Mutation("condition", begin, end, "!(%s)" % text[begin:end]))
    return sorted(result, key=lambda mutation: (mutation.begin, mutation.end))


def apply(text, mutation):
    return text[:mutation.begin] + mutation.new + text[mutation.end:]


def describe(text, mutation):
    """The change in one line, without the file and the line number."""
    old = " ".join(text[mutation.begin:mutation.end].split())
    if mutation.kind == "statement":
        return "'%s;' removed" % old
    return "'%s' becomes '%s'" % (old, " ".join(mutation.new.split()))


def line_of(text, mutation):
    return text.count("\n", 0, mutation.begin) + 1
