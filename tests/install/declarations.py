"""Functions that a C++ header declares and does not define: enough of the language for the public headers."""

import re

_SCOPE = re.compile(r"(?:^|\s)(namespace|class|struct|union)\s+(?:\[\[\w+\]\]\s*)?([\w:]*)[^()=]*$")
# Declarations that are defined in the header, deleted, or not functions.
_NO_DECLARATION = re.compile(
    r"^(template|using|typedef|friend|static_assert|extern|enum|class|struct|public:|private:)\b|"
    r"\b(inline|constexpr|default|delete)\b|=\s*0$")
_LABEL = re.compile(r"^\s*(public|private|protected)\s*:(?!:)\s*")
_FUNCTION = re.compile(r"(operator\s*(?:\(\)|\[\]|[^\s\w(]+)|~?\w+)\s*\((?!\s*\*)")


def without_comments(text):
    """Returns the text without comments, strings and lines of the preprocessor."""
    text = re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', lambda match: '""' if match[0][0] == '"' else " ", text,
                  flags=re.DOTALL)
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", "", text, flags=re.MULTILINE)


def _declared_name(statement):
    """Returns the name of the function that the statement declares; None if it declares none."""
    statement = re.sub(r"\[\[.*?\]\]|\b[A-Z_]+_H?IDE\b", " ", statement)
    while _LABEL.match(statement):
        statement = _LABEL.sub("", statement)
    statement = statement.strip()
    if _NO_DECLARATION.search(statement):
        return None
    operators = {}

    def keep_operator(match):
        name = "operator_%d" % len(operators)
        operators[name] = "operator" + match.group(1)
        return name + "("

    statement = re.sub(r"\boperator\s*(\(\)|\[\]|[^\s\w(]+)\s*\(", keep_operator, statement)
    while re.search(r"<[^<>]*>", statement):
        statement = re.sub(r"<[^<>]*>", "", statement)
    match = _FUNCTION.search(statement)
    if not match or "=" in statement[:match.start()]:
        return None
    return operators.get(match.group(1), match.group(1))


def declared_functions(text):
    """Returns the qualified names of functions that the header declares and does not define."""
    text = without_comments(text)
    names, scopes, statement, parentheses, at = [], [], "", 0, 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "{":
            match = None if parentheses else _SCOPE.search(statement)
            if match and not statement.lstrip().startswith("template"):
                scopes.append(match.group(2))
                statement = ""
                continue
            if statement.strip().startswith("extern"):
                scopes.append("")
                statement = ""
                continue
            depth = 1
            while depth:
                depth += {"{": 1, "}": -1}.get(text[at], 0)
                at += 1
            # The body of a function ends its definition; other braces are values.
            if not parentheses and re.search(r"\)[^=]*$", statement) and not re.search(r"=\s*$", statement):
                statement = ""
            continue
        if char == "}":
            scopes.pop()
            statement = ""
            continue
        if char == ";" and not parentheses:
            name = _declared_name(statement)
            if name:
                names.append("::".join([scope for scope in scopes if scope] + [name]))
            statement = ""
            continue
        parentheses += {"(": 1, ")": -1}.get(char, 0)
        statement += char
    return names
