"""What PostgREST makes of a request: one statement, whose values are parameters and whose result is the body."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import psycopg
from psycopg import sql
from standins.errors import Refused, ambiguous

Parameters = Sequence[tuple[str, str]]
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OPERATORS = {"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
IS = {"null": "NULL", "true": "TRUE", "false": "FALSE", "unknown": "UNKNOWN"}
UNCOVERED = {"like", "ilike", "match", "imatch", "isdistinct", "cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj"}
UNCOVERED |= {"fts", "plfts", "phfts", "wfts"}
RESERVED = {"and", "or", "not.and", "not.or", "columns", "on_conflict"}
QUOTED_OR_PLAIN = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,"]*)')


@dataclass(frozen=True)
class Function:
    """One that a call found by its name and the names of its arguments."""

    name: str
    arguments: list[tuple[str, str]]
    returns_nothing: bool
    is_volatile: bool
    isolation: str | None
    settings: dict[str, str]

    @property
    def statement(self) -> sql.Composable:
        """The arguments come as JSON and leave as the function's own types, by PostgreSQL's rules."""
        names = [sql.Identifier(name) for name, _ in self.arguments]
        source = sql.SQL("")
        if names:
            source = sql.SQL(
                ", LATERAL (SELECT {} FROM json_to_record(payload.body) AS _({})) AS given",
            ).format(
                sql.SQL(", ").join(names),
                sql.SQL(", ").join(
                    sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in self.arguments
                ),
            )
        return sql.SQL(
            """WITH source AS (
                   SELECT answer.scalar FROM (SELECT %s::json AS body) AS payload{},
                       LATERAL (SELECT {}({}) AS scalar) AS answer)
               SELECT coalesce(json_agg(source.scalar) -> 0, 'null')::text FROM source"""
            if not self.returns_nothing
            else """SELECT {1}({2}) FROM (SELECT %s::json AS body) AS payload{0}"""
        ).format(
            source,
            sql.Identifier("public", self.name),
            sql.SQL(", ").join(sql.SQL("{} := given.{}").format(name, name) for name in names),
        )


FUNCTIONS = """
    SELECT coalesce(p.proargnames, '{}'),
           ARRAY(SELECT format_type(one, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY a (one, n) ORDER BY n),
           p.pronargdefaults, p.prorettype = 'void'::regtype, p.provolatile = 'v', coalesce(p.proconfig, '{}'),
           p.proretset OR t.typtype IN ('c', 'p') AND p.prorettype <> 'void'::regtype OR p.proargmodes IS NOT NULL
    FROM pg_proc AS p JOIN pg_type AS t ON t.oid = p.prorettype
    WHERE p.pronamespace = 'public'::regnamespace AND p.proname = %s AND p.prokind = 'f'
        AND p.prorettype <> 'trigger'::regtype
"""


async def find_function(connection: psycopg.AsyncConnection, name: str, given: Collection[str]) -> Function | None:
    """The one that takes these arguments: all that have no default, and none that it does not know."""
    found: list[Function] = []
    rows = await (await connection.execute(FUNCTIONS, [name])).fetchall()
    for names, types, defaults, returns_nothing, is_volatile, config, is_more_than_one_value in rows:
        if len(names) < len(types) or "" in names:
            raise Refused.uncovered(f"public.{name}, which has an argument without a name")
        needed = names[: len(types) - defaults]
        if not set(needed) <= set(given) <= set(names[: len(types)]):
            continue
        if is_more_than_one_value:
            raise Refused.uncovered(f"public.{name}, which returns rows")
        settings = dict(setting.split("=", 1) for setting in config)
        found.append(
            Function(
                name,
                [(argument, kind) for argument, kind in zip(names, types, strict=False) if argument in given],
                returns_nothing,
                is_volatile,
                settings.get("default_transaction_isolation"),
                {key: value for key, value in settings.items() if key == "statement_timeout"},
            )
        )
    if len(found) > 1:
        raise ambiguous(name)
    return found[0] if found else None


@dataclass(frozen=True)
class Where:
    """Filters that all hold."""

    condition: sql.Composable
    values: list[Any]

    @classmethod
    def parse(cls, table: str, filters: Iterable[tuple[str, str]]) -> Self:
        parts, values = [], []
        for name, text in filters:
            if name in RESERVED:
                raise Refused.uncovered(f"the parameter {name}")
            part, more = _filter(_column(table, name), text)
            parts.append(part)
            values += more
        return cls(sql.SQL(" WHERE ") + sql.SQL(" AND ").join(parts) if parts else sql.SQL(""), values)


@dataclass(frozen=True)
class Select:
    table: str
    columns: sql.Composable
    where: Where
    order: sql.Composable
    limit: int
    offset: int

    @classmethod
    def parse(cls, table: str, parameters: Parameters, most: int) -> Self:
        known = {name: value for name, value in parameters if name in ("select", "order", "limit", "offset")}
        columns = [_column(table, name) for name in known.get("select", "*").split(",")]
        order = [_order(table, term) for term in known.get("order", "").split(",") if term]
        return cls(
            table,
            sql.SQL(", ").join(columns),
            Where.parse(table, [(name, value) for name, value in parameters if name not in known]),
            sql.SQL(" ORDER BY ") + sql.SQL(", ").join(order) if order else sql.SQL(""),
            min(_number("limit", known.get("limit", str(most))), most),
            _number("offset", known.get("offset", "0")),
        )

    def statement(self, *, counting: bool) -> sql.Composable:
        """The count of all rows or null, the count of these rows, these rows."""
        source = sql.SQL("FROM {}{}").format(sql.Identifier("public", self.table), self.where.condition)
        return sql.SQL(
            """WITH source AS (SELECT {columns} {source}{order} LIMIT %s OFFSET %s)
               SELECT {total}, count(*), coalesce(json_agg(page), '[]')::text FROM (SELECT * FROM source) AS page"""
        ).format(
            columns=self.columns,
            source=source,
            order=self.order,
            total=sql.SQL("(SELECT count(*) {})").format(source) if counting else sql.SQL("NULL::bigint"),
        )

    def values(self, *, counting: bool) -> list[Any]:
        return [*self.where.values, self.limit, self.offset, *(self.where.values if counting else [])]


@dataclass(frozen=True)
class Delete:
    table: str
    where: Where

    @classmethod
    def parse(cls, table: str, parameters: Parameters) -> Self:
        if any(name in ("select", "order", "limit", "offset") for name, _ in parameters):
            raise Refused.uncovered("a delete with select, order, limit or offset")
        if not parameters:  # Supabase has the extension safeupdate, which sees to it
            raise Refused(400, "21000", "DELETE requires a WHERE clause")
        return cls(table, Where.parse(table, parameters))

    @property
    def statement(self) -> sql.Composable:
        return sql.SQL(
            """WITH source AS (DELETE FROM {table}{where} RETURNING *)
               SELECT coalesce(json_agg(source), '[]')::text FROM source"""
        ).format(table=sql.Identifier("public", self.table), where=self.where.condition)

    @property
    def values(self) -> list[Any]:
        return self.where.values


def _column(table: str, name: str) -> sql.Composable:
    if name == "*":
        return sql.SQL("{}.*").format(sql.Identifier("public", table))
    if not NAME.fullmatch(name):
        raise Refused.uncovered(f"{name!r} as a column")
    return sql.Identifier("public", table, name)


def _order(table: str, term: str) -> sql.Composable:
    found = re.fullmatch(r"(\w+)(\.asc|\.desc)?(\.nullsfirst|\.nullslast)?", term)
    if found is None:
        raise Refused.uncovered(f"{term!r} as an order")
    name, direction, nulls = found.groups()
    words = {".asc": " ASC", ".desc": " DESC", ".nullsfirst": " NULLS FIRST", ".nullslast": " NULLS LAST", None: ""}
    return _column(table, name) + sql.SQL(words[direction] + words[nulls])


def _number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise Refused.uncovered(f"{text!r} as {name}")
    return int(text)


def _filter(column: sql.Composable, text: str) -> tuple[sql.Composable, list[Any]]:
    without_not = text.removeprefix("not.")
    negation = sql.SQL("NOT " if without_not != text else "")
    operator, dot, value = without_not.partition(".")
    if dot and operator in OPERATORS:
        return sql.SQL("{}{} {} %s").format(negation, column, sql.SQL(OPERATORS[operator])), [value]
    if dot and operator == "is" and value.lower() in IS:
        return sql.SQL("{}{} IS {}").format(negation, column, sql.SQL(IS[value.lower()])), []
    if dot and operator == "in" and value.startswith("(") and value.endswith(")"):
        return sql.SQL("{}{} = ANY (%s)").format(negation, column), [_array(_members(value[1:-1]))]
    if operator in UNCOVERED or operator.partition("(")[0] in OPERATORS | dict.fromkeys(UNCOVERED):
        raise Refused.uncovered(f"the operator {operator}")
    raise Refused(400, "PGRST100", f'"failed to parse filter ({text})" (line 1, column 1)', "unexpected operator")


def _members(text: str) -> list[str]:
    """``a,"b,c"`` are ``a`` and ``b,c``."""
    members, place = [], 0
    while text and place <= len(text):
        found = QUOTED_OR_PLAIN.match(text, place)
        assert found is not None
        quoted, plain = found.groups()
        members.append(plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        place = found.end() + 1
    return members


def _array(members: Iterable[str]) -> str:
    """An array as text, whose type PostgreSQL finds by what it is compared with."""
    quoted = ('"' + member.replace("\\", "\\\\").replace('"', '\\"') + '"' for member in members)
    return "{" + ",".join(quoted) + "}"
