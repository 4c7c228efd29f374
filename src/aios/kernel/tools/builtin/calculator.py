"""`calculator`: arithmetic, exact where numbers are rational. Pure, with a parser of its own; nothing is ever evaluated as code.

sum := product (('+' | '-') product)*          product := sign (('*' | '/' | '//' | '%') sign)*
sign := ('+' | '-')* power                     power := atom (('**' | '^') sign)?
atom := number | name | name '(' sum (',' sum)* ')' | '(' sum ')'

Every number is kept under `MAX_BITS`, checked before it is computed, so no expression takes long or much memory.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from aios.abi.tools import Traits
from aios.errors import InvalidCall
from aios.kernel.tools.builtin.making import make, string
from aios.kernel.tools.cache import Outcome
from aios.kernel.tools.tool import Job, Tool

MAX_CHARS = 2_000
MAX_DEPTH = 64
MAX_BITS = 8_192
"""Numerator or denominator; about 2,500 digits."""
N_DIGITS = 15
"""Of a result that is no whole number."""
_TOKEN = re.compile(
    r"\s*(?:(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|(\*\*|//|[-+*/%^(),])|([A-Za-z_]\w*))"
)
MAX_DECIMAL_EXPONENT = 400

Number = Fraction | float


def _real(function: Callable[[float], float]) -> Callable[..., Number]:
    return lambda x: function(float(x))


def _root(x: Number) -> Number:
    if isinstance(x, Fraction) and x >= 0:
        top, bottom = math.isqrt(x.numerator), math.isqrt(x.denominator)
        if top * top == x.numerator and bottom * bottom == x.denominator:
            return Fraction(top, bottom)
    return math.sqrt(x)


def _round(x: Number, digits: Number = 0.0) -> Number:
    n_digits = int(digits)
    if n_digits != digits or not -N_DIGITS <= n_digits <= N_DIGITS:
        raise ValueError(f"round to between -{N_DIGITS} and {N_DIGITS} digits")
    return Fraction(round(Fraction(x), n_digits))


CONSTANTS: Mapping[str, Number] = MappingProxyType({"pi": math.pi, "e": math.e, "tau": math.tau})
FUNCTIONS: Mapping[str, Callable[..., Number]] = MappingProxyType(
    {
        "abs": lambda x: abs(x),
        "min": min,
        "max": max,
        "round": _round,
        "floor": lambda x: Fraction(math.floor(x)),
        "ceil": lambda x: Fraction(math.ceil(x)),
        "sqrt": _root,
        "exp": _real(math.exp),
        "ln": _real(math.log),
        "log2": _real(math.log2),
        "log10": _real(math.log10),
        "sin": _real(math.sin),
        "cos": _real(math.cos),
        "tan": _real(math.tan),
    }
)


def calculator() -> Tool:
    """The tool."""
    known = ", ".join([*FUNCTIONS, *CONSTANTS])
    return make(
        "calculator",
        f"Compute a number: + - * / // % ** and brackets; {known}.",
        _run,
        parameters={
            "expression": string("such as (2 + 3) * sqrt(16)", min_length=1, max_length=MAX_CHARS)
        },
        required=["expression"],
        traits=Traits(effect="pure", is_pure=True, timeout_s=5.0),
    )


def calculate(expression: str) -> str:
    """The value of an expression; whole if it is whole, else of 15 digits.

    Raises:
        InvalidCall: It is no expression, or has no value that can be computed within bounds.
    """
    try:
        return _shown(_Reader(expression).value())
    except (ValueError, ArithmeticError, TypeError) as error:
        raise InvalidCall(
            f"{expression[:80]!r} has no value: {error}", hint="see the tool's description"
        ) from error


async def _run(job: Job) -> Outcome:
    return Outcome(calculate(job.text("expression")))


@dataclass
class _Reader:
    """Reads an expression from left to right and computes on the way."""

    text: str
    at: int = 0
    depth: int = 0

    def value(self) -> Number:
        """The value of the whole."""
        found = self._sum()
        if self._peek():
            raise ValueError(f"{self._peek()!r} at character {self.at + 1} was not expected")
        return found

    def _sum(self) -> Number:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} levels of brackets")
        found = self._product()
        while (sign := self._peek()) in {"+", "-"}:
            self._take()
            other = self._product()
            found = _bounded(found + other if sign == "+" else found - other)
        self.depth -= 1
        return found

    def _product(self) -> Number:
        found = self._sign()
        while (sign := self._peek()) in {"*", "/", "//", "%"}:
            self._take()
            found = _bounded(_apply(sign, found, self._sign()))
        return found

    def _sign(self) -> Number:
        is_negative = False
        while (sign := self._peek()) in {"+", "-"}:
            self._take()
            is_negative ^= sign == "-"
        found = self._power()
        return -found if is_negative else found

    def _power(self) -> Number:
        base = self._atom()
        if self._peek() not in {"**", "^"}:
            return base
        self._take()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} powers in a row")
        exponent = self._sign()
        self.depth -= 1
        return _power(base, exponent)

    def _atom(self) -> Number:
        word = self._take()
        if word == "(":
            found = self._sum()
            self._expect(")")
            return found
        if word[:1].isdigit() or word[:1] == ".":
            return _number(word)
        if self._peek() == "(":
            return self._call(word)
        if word in CONSTANTS:
            return CONSTANTS[word]
        raise ValueError(f"{word or 'the end'!r} at character {self.at + 1} was not expected")

    def _call(self, name: str) -> Number:
        if name not in FUNCTIONS:
            raise ValueError(f"there is no function {name}; there are {', '.join(FUNCTIONS)}")
        self._expect("(")
        values = [self._sum()]
        while self._peek() == ",":
            self._take()
            values.append(self._sum())
        self._expect(")")
        return _bounded(FUNCTIONS[name](*values))

    def _peek(self) -> str:
        """The next token; empty at the end."""
        found = _TOKEN.match(self.text, self.at)
        if found is None:
            return self.text[self.at :].strip()[:1]
        return found[1] or found[2] or found[3]

    def _take(self) -> str:
        found = _TOKEN.match(self.text, self.at)
        if found is None:
            rest = self.text[self.at :].strip()
            raise ValueError(f"{rest[:1]!r} was not expected" if rest else "it ends too early")
        self.at = found.end()
        return found[1] or found[2] or found[3]

    def _expect(self, token: str) -> None:
        if self._peek() != token:
            raise ValueError(f"{token!r} is missing at character {self.at + 1}")
        self._take()


def _number(token: str) -> Number:
    _, _, exponent = token.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_DECIMAL_EXPONENT:
        raise ValueError(f"an exponent beyond {MAX_DECIMAL_EXPONENT}")
    return _bounded(Fraction(token))


def _apply(sign: str, one: Number, other: Number) -> Number:
    if sign == "*":
        return one * other
    if not other:
        raise ValueError("division by zero")
    if sign == "/":
        return one / other
    quotient = Fraction(math.floor(one / other))
    return quotient if sign == "//" else one - other * quotient


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        if not base and exponent < 0:
            raise ValueError("division by zero")
        n_bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(base) != 1 and n_bits * abs(exponent.numerator) > MAX_BITS:
            raise ValueError(f"the power is over {MAX_BITS} bits")
        return _bounded(base ** (exponent.numerator if abs(base) != 1 else exponent.numerator % 2))
    found = float(base) ** float(exponent)
    if isinstance(found, complex):
        raise ValueError("the root of a negative number")  # noqa: TRY004 - a value, not a type: only Python makes it another type
    return _bounded(found)


def _bounded(found: Number) -> Number:
    if isinstance(found, float) and not math.isfinite(found):
        raise ValueError("the result is not finite")
    if isinstance(found, int):
        found = Fraction(found)
    if isinstance(found, Fraction):
        n_bits = max(found.numerator.bit_length(), found.denominator.bit_length())
        if n_bits > MAX_BITS:
            raise ValueError(f"a number is over {MAX_BITS} bits")
    return found


def _shown(found: Number) -> str:
    if isinstance(found, Fraction) and found.denominator == 1:
        return str(found.numerator)
    if found == int(found) and abs(found) < 10**N_DIGITS:
        return str(int(found))
    return f"{float(found):.{N_DIGITS}g}"
