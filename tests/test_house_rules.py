"""The promises of CONTRIBUTING.md that no linter keeps, measured on every run.

A rule is a generator that takes a file and yields (line, complaint). What may break a rule stands in `EXCEPTIONS`, with the
reason; an exception that is no longer needed fails too. `BREACHES` holds for each rule a piece of code that breaks it.
"""

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from tests.sources import LEFT_TO_DO, ROOT, File, read_files

pytestmark = pytest.mark.no_cover  # no line of the project runs here

FILE_LINES = 500
FUNCTION_LINES = 50
TEST_FUNCTION_LINES = 80
POSITIONAL_ARGUMENTS = 4
PATIENCE_S = 30
MANAGERS = {"ContextManager", "MemoryManager", "StorageManager", "ToolManager", "AccessManager"}

# rule -> file -> why. For `mirrors-the-source`, what the test file is about instead.
EXCEPTIONS: dict[str, dict[str, str]] = {
    "any-only-at-the-edge": {
        "src/aios/abi/wire.py": "decodes what may be anything",
        "src/aios/engine/llama/binding.py": "ctypes has no types of its own",
        "src/aios/kernel/replaying.py": "calls and answers of every type come back from the journal",
        "src/aios/kernel/syscall.py": "one table for calls of every answer type; `Call[A]` ties them together outside",
        "src/aios/sdk/socket.py": "one table for calls of every answer type in flight",
        "src/aios/server/limits.py": "the ASGI interface is typed so",
        "src/aios/server/openapi.py": "an OpenAPI document is JSON",
        "src/aios/server/protocol.py": "uvicorn's protocol class is typed so",
        "src/aios/server/stream.py": "one table for calls of every answer type in flight",
    },
    "catches-no-exception": {
        "src/aios/errors.py": "edge 1, of system calls and of what the kernel does by itself with what comes from outside",
        "src/aios/kernel/kernel.py": "edge 1 for agents inside the embedding program",
        "src/aios/server/app.py": "edge 2: an HTTP route",
        "src/aios/server/native.py": "edge 2: a call over the Unix socket",
        "src/aios/kernel/tools/mcp/session.py": "the edge to the SDK of MCP, which is fed by servers that nobody vouches for",
        "src/aios/disk/commit.py": "one writer's bug must not undo the writes of its group; it is raised at that writer",
        "src/aios/testing/simulation.py": "whatever ends a run is what its seed found",
        "src/aios/sdk/invoke.py": "the edge to a tool's code: the model reads what it raised",
        "src/aios/sdk/tools.py": "the edge to a tool's code: the model reads what it raised",
    },
    "reads-by-type-in-one-place": {
        "src/aios/readers.py": "this is the one place",
    },
    "takes-few-arguments": {
        "src/aios/kernel/egress/connecting.py": "the interface of httpcore's backends is so",
    },
    "starts-no-thread": {
        "src/aios/kernel/sandbox/relay.py": "a script of its own inside a sandbox, without AIOS and its task groups",
        "src/aios/engine/llama/engine.py": "the engine's own thread",
    },
    "mirrors-the-source": {
        "tests/kernel/egress/test_escapes.py": "hostile programs against the proxy as a whole",
        "tests/test_house_rules.py": "the source as a whole",
        "tests/kernel/test_canaries.py": "secrets in all that a kernel keeps and shows",
        "tests/disk/test_crashes.py": "db.py and blobs.py together, killed or on a disk that loses what was not synced",
        "tests/kernel/sandbox/test_escapes.py": "hostile programs behind each wall",
        "tests/engine/test_contract.py": "the contract of engine/base.py, against every engine",
        "tests/kernel/test_attacks.py": "turns that are cut off at every step, across kernel, engine and server",
        "tests/kernel/tools/mcp/test_fuzz.py": "malformed replies of servers and executables, through the whole kernel",
        "tests/server/test_attacks.py": "malformed requests against every route",
    },
}


PATTERN_END = "(?!" + r"\n)$"

Complaints = Iterator[tuple[int, str]]
Rule = Callable[[File], Complaints]


def fits_in_a_file(file: File) -> Complaints:
    if len(file.lines) > FILE_LINES:
        yield (
            len(file.lines),
            f"{len(file.lines)} lines; {FILE_LINES} is the limit: split it by what it does",
        )


def fits_in_a_function(file: File) -> Complaints:
    limit = TEST_FUNCTION_LINES if file.is_test else FUNCTION_LINES
    for function in file.functions:
        n_lines = (
            (function.end_lineno or function.lineno)
            - function.lineno
            + 1
            - docstring_lines(function)
        )
        if n_lines > limit:
            yield (
                function.lineno,
                f"{function.name} has {n_lines} lines without its docstring; {limit} is the limit",
            )


def docstring_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many lines a function's docstring takes."""
    if ast.get_docstring(function) is None:
        return 0
    first = function.body[0]
    return (first.end_lineno or first.lineno) - first.lineno + 1


def takes_few_arguments(file: File) -> Complaints:
    for function in file.functions:
        names = [argument.arg for argument in [*function.args.posonlyargs, *function.args.args]]
        if names[:1] in (["self"], ["cls"]):
            del names[0]
        if file.is_test and is_test_function(function):
            continue  # its arguments are fixtures
        if len(names) > POSITIONAL_ARGUMENTS:
            yield (
                function.lineno,
                f"{function.name} takes {len(names)} arguments by position, not {POSITIONAL_ARGUMENTS}; name the rest",
            )


def says_what_it_is(file: File) -> Complaints:
    if file.is_source and not ast.get_docstring(file.tree):
        yield 1, "no module docstring"


def mirrors_the_source(file: File) -> Complaints:
    path = Path(file.name)
    if not (file.is_test and path.name.startswith("test_")):
        return
    folder = path.parent.relative_to("tests")
    stem = path.stem.removeprefix("test_")
    places = [
        Path("src/aios") / folder / f"{stem}.py",
        Path("src/aios") / folder / stem / "__init__.py",
    ]
    places += [Path("src/aios") / folder / "__init__.py"] if stem == "init" else []
    places += [
        folder / stem.replace("_", "-"),
        folder / f"{stem}.py",
        folder / stem,
    ]  # scripts/, examples/
    if not any((ROOT / place).exists() for place in places):
        yield 1, f"tests no file: there is no {places[0]}"


def has_a_plain_name(file: File) -> Complaints:
    if Path(file.name).stem in {"common", "util", "utils", "helper", "helpers", "misc"}:
        yield 1, "the file's name says nothing: name what is in it"
    for cls in file.classes:
        if re.search(r"(Helpers?|Utils?|Utilities|Handler|Impl)$", cls.name):
            yield (
                cls.lineno,
                f"class {cls.name}: take the word from the operating-systems book, or name what it is",
            )
        if cls.name.endswith("Manager") and cls.name not in MANAGERS:
            yield (
                cls.lineno,
                f"class {cls.name}: five classes end in Manager, and this is none of them",
            )


def any_only_at_the_edge(file: File) -> Complaints:
    if not file.is_source:
        return
    for node in file.nodes:
        if isinstance(node, ast.ImportFrom) and any(name.name == "Any" for name in node.names):
            yield (
                node.lineno,
                "imports Any: parse at the edge, trust inside; `object` is the type of what is unknown",
            )


def catches_no_exception(file: File) -> Complaints:
    if not file.is_source:
        return
    for node in file.nodes:
        if (
            isinstance(node, ast.ExceptHandler)
            and catches_everything(node)
            and not raises_again(node)
        ):
            yield node.lineno, "catches every exception: only the two edges may"


def catches_everything(handler: ast.ExceptHandler) -> bool:
    """Whether it catches `Exception`, `BaseException` or all."""
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        node is None or (isinstance(node, ast.Name) and node.id in {"Exception", "BaseException"})
        for node in caught
    )


def raises_again(handler: ast.ExceptHandler) -> bool:
    """Whether a handler ends by raising what it caught: it cleans up and hides nothing."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def starts_no_thread(file: File) -> Complaints:
    banned = {"create_task", "ensure_future", "gather", "Thread", "Timer", "start_new_thread"}
    banned |= {"ThreadPoolExecutor", "ProcessPoolExecutor"}
    if not file.is_source:
        return
    for node in file.nodes:
        if isinstance(node, ast.Call) and (name := called_name(node)) in banned:
            yield node.lineno, f"calls {name}: every task lives in a task group with an owner"


def called_name(call: ast.Call) -> str:
    """The last part of the name of what is called."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def leaves_nothing_to_do(file: File) -> Complaints:
    for token in file.marks:
        if re.search(LEFT_TO_DO, token.string):
            yield token.start[0], f"{token.string.strip()}: do it, or write an issue"


def gives_reasons(file: File) -> Complaints:
    allowed = re.compile(r"#\s*(?:noqa: [A-Z0-9, ]+|type: ignore\[[\w, -]+\])")
    # One reason a file and code is enough: an import is put off in several functions for the same reason.
    explained: set[str] = set()
    for token in file.marks:
        if not re.match(r"#\s*(noqa|type: ignore)", token.string):
            continue
        named = allowed.match(token.string)
        code = named[0].strip() if named else ""
        rest = allowed.sub("", token.string).strip(" -#:")
        if named and (len(rest.split()) > 1 or is_explained_above(file, token.start[0], code)):
            explained.add(code)
        elif code not in explained:
            yield token.start[0], f"{token.string}: name the code, then say why it is right here"


def is_explained_above(file: File, number: int, code: str) -> bool:
    """Whether the line, or the block of lines with the same comment that it ends, stands under a comment."""
    above = number - 2
    while above > 0 and code in file.lines[above]:
        above -= 1
    return above >= 0 and file.lines[above].lstrip().startswith("# ")


def asserts_something(file: File) -> Complaints:
    if not file.is_test:
        return
    # A property that is run on generated input asserts at least that nothing is raised.
    checking = {function.name for function in file.functions if checks(function, set())}
    for function in file.functions:
        is_property = any(
            ast.unparse(mark).startswith("given(") for mark in function.decorator_list
        )
        if is_test_function(function) and not is_property and not checks(function, checking):
            yield function.lineno, f"{function.name} asserts nothing, so it cannot fail"


def is_test_function(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether pytest collects it."""
    return function.name.startswith("test_")


def checks(function: ast.AST, known: set[str]) -> bool:
    """Whether a function asserts, expects an error, waits for a condition, or calls a check by name."""
    for node in ast.walk(function):
        if isinstance(
            node, ast.Assert | ast.While
        ):  # a wait that does not end runs into its `fail_after`
            return True
        if (
            isinstance(node, ast.keyword)
            and node.arg == "check"
            and ast.unparse(node.value) == "True"
        ):
            return True
        if isinstance(node, ast.Call):
            name = called_name(node)
            if name in known | {"raises", "warns", "fail"} or re.match(
                r"_?(assert|check|expect|until|run_state_machine)", name
            ):
                return True
    return False


def waits_patiently(file: File) -> Complaints:
    """A wait that ends too early fails on a busy machine; one that ends late costs only who fails anyway."""
    for node in file.nodes if file.is_test else ():
        if isinstance(node, ast.Call) and called_name(node) == "fail_after":
            limit = node.args[0]
            value = limit.value if isinstance(limit, ast.Constant) else None
            if isinstance(value, int | float) and value < PATIENCE_S:
                yield (
                    node.lineno,
                    f"give it {PATIENCE_S} s, or measure the time and say what it may be",
                )


def names_no_machine(file: File) -> Complaints:
    for number, line in enumerate(file.lines, 1):
        if found := re.search(r"(?<![\w.~/-])/(?:home|Users|root|work|workspace)/[\w.-]+", line):
            yield number, f"{found[0]} is a path of one machine"


def declares_what_it_imports(file: File) -> Complaints:
    if not file.is_source:
        return
    for node in file.nodes:
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            top = name.partition(".")[0]
            owners = {normal(owner) for owner in PROVIDERS.get(top, [])}
            if owners and not owners & DECLARED:
                yield (
                    node.lineno,
                    f"imports {top}, but pyproject.toml does not name {' or '.join(sorted(owners))}",
                )


def normal(distribution: str) -> str:
    """A distribution's name as packaging compares it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def declared() -> set[str]:
    """The distributions that users of AIOS get: the dependencies and the extras, and AIOS itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [
        *project["dependencies"],
        *extras["local"],
        *extras["memory"],
        *extras["mcp"],
        *extras["documents"],
        *extras["bench"],
        project["name"],
    ]
    return {normal(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines}


PROVIDERS = packages_distributions()
DECLARED = declared()


READS = {"convert": 1, "decode": 1, "Decoder": 0}
"""What of msgspec reads as a type, and which of its arguments is the type."""
PLAIN = {
    "bool",
    "bytes",
    "dict",
    "float",
    "int",
    "list",
    "object",
    "str",
    "tuple",
    "Raw",
    "msgspec",
    "JsonObject",
}


def reads_by_type_in_one_place(file: File) -> Complaints:
    """Only `readers.py` looks at classes safely for threads; types without classes of ours need no look."""
    if not file.is_source or file.name.startswith(("src/aios/bench/", "src/aios/testing/")):
        return
    plain = set(PLAIN)
    for statement in file.tree.body:
        match statement:
            case ast.Assign([ast.Name(name)], value) if names_in(value) <= plain:
                plain.add(name)
    for node in file.nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("msgspec."):
            at = READS.get(called_name(node), len(node.args))
            kinds = [each.value for each in node.keywords if each.arg == "type"] + node.args[at:]
            if called_name(node) in READS and kinds and not names_in(kinds[0]) <= plain:
                yield node.lineno, "reads as a class of ours past aios/readers.py: threads crash"


def names_in(expression: ast.expr) -> set[str]:
    """All names and attributes in an expression."""
    every = list(ast.walk(expression))
    return {each.id for each in every if isinstance(each, ast.Name)} | {
        each.attr for each in every if isinstance(each, ast.Attribute)
    }


def ends_its_patterns(file: File) -> Complaints:
    """A bare `$` lets a last newline through, in Python alone; `\\Z` is known to Python alone."""
    if not file.is_source:
        return
    for node in file.nodes:
        value = node.value if isinstance(node, ast.keyword) and node.arg == "pattern" else None
        if isinstance(value, ast.Constant):
            pattern = str(value.value)
            if pattern.endswith("$") and not pattern.endswith(PATTERN_END):
                yield value.lineno, f"a pattern for whole texts ends with {PATTERN_END}"


RULES: dict[str, Rule] = {
    rule.__name__.replace("_", "-"): rule
    for rule in (
        fits_in_a_file,
        fits_in_a_function,
        takes_few_arguments,
        says_what_it_is,
        mirrors_the_source,
        has_a_plain_name,
        any_only_at_the_edge,
        catches_no_exception,
        starts_no_thread,
        leaves_nothing_to_do,
        gives_reasons,
        asserts_something,
        waits_patiently,
        names_no_machine,
        declares_what_it_imports,
        reads_by_type_in_one_place,
        ends_its_patterns,
    )
}

# One piece of code a rule, which breaks it, with the name that its file would have. Words are put together where this file
# itself would break the rule.
BREACHES: dict[str, tuple[str, str]] = {
    "fits-in-a-file": ("src/aios/x.py", "a = 1\n" * (FILE_LINES + 1)),
    "fits-in-a-function": ("src/aios/x.py", "def f():\n" + "    a = 1\n" * FUNCTION_LINES),
    "takes-few-arguments": ("src/aios/x.py", "class C:\n    def f(self, a, b, c, d, e): ..."),
    "says-what-it-is": ("src/aios/x.py", "a = 1\n"),
    "mirrors-the-source": ("tests/kernel/test_nothing.py", ""),
    "has-a-plain-name": ("src/aios/x.py", "class QueueManager: ..."),
    "any-only-at-the-edge": ("src/aios/x.py", "from typing import Any"),
    "catches-no-exception": (
        "src/aios/x.py",
        "try:\n    f()\nexcept (OSError, Exception):\n    pass",
    ),
    "starts-no-thread": ("src/aios/x.py", "threading.Thread(target=f).start()"),
    "leaves-nothing-to-do": ("src/aios/x.py", "a = 1  # " + "TO" + "DO: more"),
    "gives-reasons": ("src/aios/x.py", "import a  # " + "no" + "qa: PLC0415"),
    "asserts-something": ("tests/test_x.py", "def test_it_works():\n    f()"),
    "waits-patiently": ("tests/test_x.py", f"fail_after({PATIENCE_S - 1})"),
    "names-no-machine": ("docs/x.md", "a = '/ho" + "me/someone/aios'"),
    "declares-what-it-imports": ("src/aios/x.py", "from pytest import raises"),
    "reads-by-type-in-one-place": ("src/aios/x.py", "msgspec.json.decode(data, type=Record)"),
    "ends-its-patterns": ("src/aios/x.py", "Meta(pattern='^a$')"),
}


@cache
def complaints() -> dict[str, list[tuple[str, int, str]]]:
    """What each rule has against which file, exceptions among it: each file is read once, for all rules, and let go."""
    found: dict[str, list[tuple[str, int, str]]] = {name: [] for name in RULES}
    for file in read_files():
        for name, rule in RULES.items():
            found[name] += [(file.name, line, complaint) for line, complaint in rule(file)]
    return found


@pytest.mark.parametrize("name", RULES)
def test_the_code_keeps_the_rule(name: str) -> None:
    excepted = EXCEPTIONS.get(name, {})
    faults = [
        f"{path}:{line}: {complaint}"
        for path, line, complaint in complaints()[name]
        if path not in excepted
    ]
    assert not faults, f"rule {name}:\n" + "\n".join(faults)


@pytest.mark.parametrize("name", RULES)
def test_each_rule_catches_its_breach(name: str) -> None:
    assert list(RULES[name](File(*BREACHES[name])))


@pytest.mark.parametrize(
    ("name", "path"), [(name, path) for name in EXCEPTIONS for path in EXCEPTIONS[name]]
)
def test_each_exception_is_needed_and_has_a_reason(name: str, path: str) -> None:
    assert (ROOT / path).exists(), f"{path} is gone: take it out of EXCEPTIONS[{name!r}]"
    broken_by = {broken for broken, _, _ in complaints()[name]}
    assert path in broken_by, f"{path} keeps rule {name}: take it out of EXCEPTIONS"
    assert len(EXCEPTIONS[name][path].split()) > 2


def test_every_rule_is_tested_and_every_exception_names_a_rule() -> None:
    assert BREACHES.keys() == RULES.keys()
    assert EXCEPTIONS.keys() <= RULES.keys()
