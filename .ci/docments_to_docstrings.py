"""Turns docments into docstrings while nbdev exports, so that `help` and editors explain every parameter.

In the notebooks a parameter is explained once, by the comment beside it, as nbdev shows it:

    def double(
        x: float, # what to double, in metres
    ) -> float:   # twice as much
        "Twice `x`."

The module gets

    def double(x: float) -> float:
        \"\"\"Twice `x`.

        Args:
            x: what to double, in metres
        Returns: twice as much\"\"\"

`[tool.nbdev] export_procs` names `explain_parameters`. Only functions and methods whose names are public are changed, `__init__` and
the fields of dataclasses too. The docstring of a command or a route is what its users read (`@app.command()`, `@router.get(…)`): these
stay as they are.
"""
import ast
import io
import textwrap
import tokenize
from collections.abc import Iterator

WIDTH = 160 # characters of a line


def explain_parameters(cell) -> None:
    "What nbdev calls with each cell; changes the source of those that are exported."
    if cell.cell_type == "code" and {"export", "exporti", "exports"} & set(cell.directives_):
        cell.source = with_docstrings(cell.source)


def with_docstrings(source: str) -> str:
    "The code of a cell with the comments of its parameters moved into docstrings."
    try: tree = ast.parse(source)
    except SyntaxError: return source # a magic; nbdev says what it thinks of it
    lines, comments = source.splitlines(), comments_of(source)
    for node in sorted(public_definitions(tree), key=lambda n: -n.lineno): # from the end, so that the lines above stay where they are
        if isinstance(node, ast.ClassDef): explain_fields(node, lines, comments)
        else: explain_function(node, lines, comments)
    return "\n".join(lines)


def comments_of(source: str) -> dict[int, str]: # by line, the first being 1
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").rstrip() for t in tokens if t.type == tokenize.COMMENT}


def public_definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    "Public functions, public methods of public classes and their `__init__`, and dataclasses."
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_") and not is_command_or_route(node): yield node
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"): continue
        if any("dataclass" in ast.unparse(d) for d in node.decorator_list): yield node
        for method in node.body:
            if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)) and (method.name == "__init__" or not method.name.startswith("_")): yield method


def is_command_or_route(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(d, ast.Call) and isinstance(d.func, ast.Attribute) for d in node.decorator_list)


def all_arguments(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    a = node.args
    return [arg for arg in [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg] if arg is not None]


def explain_function(node, lines: list[str], comments: dict[int, str]) -> None:
    "Rewrite a function that has a comment beside a parameter or its result."
    body = node.body[0].lineno
    signature_lines = range(node.lineno, body if body > node.lineno else body + 1)
    arguments, owners = all_arguments(node), {}
    for argument in arguments: owners.setdefault(argument.end_lineno, []).append(argument)
    for default, argument in zip([*node.args.defaults][::-1], [*node.args.posonlyargs, *node.args.args][::-1]): # a default may end on a later line
        if default.end_lineno != argument.end_lineno: owners.setdefault(default.end_lineno, []).append(argument)
    texts, last = {}, None
    end = node.returns.end_lineno if node.returns else node.lineno
    for number in signature_lines:
        on_line = [a for a in owners.get(number, []) if a.arg not in ("self", "cls")]
        if number in comments and on_line:
            last = ", ".join(a.arg for a in on_line)
            texts[last] = comments[number]
        elif number in comments and (node.returns and number >= end or lines[number - 1].lstrip().startswith(")")): texts["Returns"], last = comments[number], "Returns"
        elif number in comments and last: texts[last] += " " + comments[number] # goes on, on a line of its own
    if not texts or (body == node.lineno): return
    first = node.body[0]
    has_doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    signature = rendered_signature(node, lines)
    rewritten = [*signature, *docstring(node, texts, first.value.value if has_doc else None)]
    before = lines[body - 1][:first.col_offset].strip() # where the body begins on the line on which the signature ends
    if before and not has_doc: rewritten.append(" " * (node.col_offset + 4) + lines[body - 1][first.col_offset:])
    lines[node.lineno - 1:first.end_lineno if has_doc else body if before else body - 1] = rewritten


def rendered_signature(node, lines: list[str]) -> list[str]:
    "The `def` on one line, or on as few as fit."
    indent = " " * node.col_offset
    start = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = f" -> {source_of(node.returns, lines)}" if node.returns else ""
    parts = argument_sources(node, lines)
    one = f"{indent}{start} {node.name}({', '.join(parts)}){returns}:"
    if len(one) <= WIDTH: return [one]
    wrapped, line = [], f"{indent}    "
    for part in parts:
        if len(line) + len(part) > WIDTH - 2 and line.strip():
            wrapped.append(line.rstrip())
            line = f"{indent}    "
        line += f"{part}, "
    return [f"{indent}{start} {node.name}(", *wrapped, line.rstrip(), f"{indent}){returns}:"]


def source_of(node: ast.AST, lines: list[str]) -> str:
    "As it is written, on one line."
    text = ast.get_source_segment("\n".join(lines), node) or ast.unparse(node)
    return text if "\n" not in text else ast.unparse(node)


def argument_sources(node, lines: list[str]) -> list[str]:
    "Each parameter with its type and default, and the marks `/`, `*`."
    a, parts = node.args, []
    plain = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(plain) - len(a.defaults)) + list(a.defaults)

    def one(argument, default, stars=""):
        text = f"{stars}{argument.arg}" + (f": {source_of(argument.annotation, lines)}" if argument.annotation else "")
        if default is None: return text
        return f"{text} = {source_of(default, lines)}" if argument.annotation else f"{text}={source_of(default, lines)}"

    for i, (argument, default) in enumerate(zip(plain, defaults), 1):
        parts.append(one(argument, default))
        if a.posonlyargs and i == len(a.posonlyargs): parts.append("/")
    if a.vararg: parts.append(one(a.vararg, None, "*"))
    elif a.kwonlyargs: parts.append("*")
    parts += [one(argument, default) for argument, default in zip(a.kwonlyargs, a.kw_defaults)]
    return parts + ([one(a.kwarg, None, "**")] if a.kwarg else [])


def docstring(node, texts: dict[str, str], known: str | None) -> list[str]:
    indent = " " * (node.col_offset + 4)
    entries = {name: text for name, text in texts.items() if name != "Returns"}
    text = textwrap.dedent(f"{' ' * len(indent)}{known}").strip() if known else ""
    found = [*([text, ""] if text else []), *(["Args:"] if entries else []), *(f"    {name}: {what}" for name, what in entries.items())]
    if "Returns" in texts and not found: found = [f"{texts['Returns'][0].upper()}{texts['Returns'][1:].rstrip('.')}."]
    elif "Returns" in texts: found.append(f"Returns: {texts['Returns']}")
    return quoted("\n".join(found), indent)


def quoted(text: str, indent: str) -> list[str]:
    raw = "r" if "\\" in text else ""
    if text.endswith('"'): text += " "
    rows = textwrap.indent(f'{raw}"""{text}"""', indent, lambda row: bool(row.strip())).splitlines()
    return [row.rstrip() for row in rows]


def explain_fields(node: ast.ClassDef, lines: list[str], comments: dict[int, str]) -> None:
    "Say in the docstring of a dataclass what its fields hold; the comments stay beside them."
    fields = {field.target.id: comments[field.lineno] for field in node.body
              if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.lineno in comments and not field.target.id.startswith("_")}
    first = node.body[0]
    has_doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    if not fields or not has_doc: return
    indent = " " * first.col_offset
    text = textwrap.dedent(f"{indent}{first.value.value}").strip()
    found = [text, "", "Args:", *(f"    {name}: {what}" for name, what in fields.items())]
    lines[first.lineno - 1:first.end_lineno] = quoted("\n".join(found), indent)
