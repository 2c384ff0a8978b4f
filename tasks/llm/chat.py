"""The conversation that turns a written command into a tool call, and back.

One short system prompt, the written command, and a compact JSON object whose `name` comes first, so
that the model decides what is asked before it copies the arguments. Prompts are always rendered by the
tokenizer's own chat template. Not here: token ids (`packing.py`) and engines (`tasks.inference`).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from tasks.artifacts import read_json
from tasks.errors import DataError

SYSTEM = "Reply with one tool call as JSON."

ToolCall = dict[str, Any]


class Tools:
    """The tools a model may call: a validator for the arguments of each.

    Args:
        definitions: OpenAI function style, `[{"type": "function", "function": {"name", "description",
            "parameters": <JSON Schema>}}, ...]`; the inner object alone is accepted too.

    Raises:
        DataError: no definition, a name missing or twice, or a schema that is not one.
    """

    def __init__(self, definitions: Sequence[Mapping[str, Any]]) -> None:
        self._validators: dict[str, Draft202012Validator] = {}
        self.schemas: dict[str, Mapping[str, Any]] = {}  # by tool name
        for definition in definitions:
            function = definition.get("function", definition)
            name, schema = function.get("name"), function.get("parameters")
            if not isinstance(name, str) or not isinstance(schema, Mapping) or name in self._validators:
                raise _bad_tools(f"tool {name!r}", "needs a name of its own and parameters (a JSON Schema)")
            try:
                Draft202012Validator.check_schema(schema)
            except SchemaError as error:
                raise _bad_tools(
                    f"tool {name!r}", f"its parameters are no JSON Schema ({error.message})"
                ) from error
            self._validators[name] = Draft202012Validator(schema)
            self.schemas[name] = schema
        if not self._validators:
            raise _bad_tools("the list of tools", "is empty; at least one tool is needed")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tools, in their order."""
        return tuple(self._validators)

    def mistake(self, call: Any) -> str | None:
        """Why `call` is not a valid tool call, or None when it is."""
        if not isinstance(call, dict) or set(call) != {"name", "arguments"}:
            return "it is not an object with exactly the keys name and arguments"
        validator = self._validators.get(call["name"]) if isinstance(call["name"], str) else None
        if validator is None:
            return f"there is no tool {call['name']!r}; known: {', '.join(self.names)}"
        error = next(iter(validator.iter_errors(call["arguments"])), None)
        return None if error is None else f"{'.'.join(map(str, error.path)) or 'arguments'}: {error.message}"


def load_tools(path: Path) -> Tools:
    """Reads tools.json (a list of definitions).

    Raises:
        ArtifactError: missing or not JSON. DataError: see `Tools`.
    """
    value = read_json(path)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _bad_tools(str(path), "must hold a list of tool definitions")
    return Tools(value)


def messages(written: str) -> list[dict[str, str]]:
    """The conversation up to the model's turn. `written` is a command after the inverse normaliser."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": written}]


def render_prompt(tokenizer: Any, written: str) -> str:
    """The prompt as text, by the tokenizer's chat template, ending where the model's answer starts."""
    text: str = tokenizer.apply_chat_template(messages(written), tokenize=False, add_generation_prompt=True)
    return text


def render_tool_call(call: Mapping[str, Any]) -> str:
    """The answer the model is trained to give: compact JSON, name first, arguments by sorted key."""
    arguments = {key: call["arguments"][key] for key in sorted(call["arguments"])}
    return json.dumps(
        {"name": call["name"], "arguments": arguments}, ensure_ascii=False, separators=(",", ":")
    )


def canonical(call: Mapping[str, Any]) -> str:
    """The form in which tool calls are compared and stored: all keys sorted, no spaces."""
    return json.dumps(call, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def parse_tool_call(text: str, tools: Tools) -> ToolCall | None:
    """The tool call in a model's answer, or None if it is not JSON or breaks the schema.

    Nothing is repaired: an answer that a strict parser refuses would not run either.
    """
    try:
        call = json.loads(text.strip())
    except ValueError:
        return None
    return call if tools.mistake(call) is None else None


def exact_match(text: str, reference: Mapping[str, Any], tools: Tools) -> bool:
    """Whether an answer is a valid tool call equal to `reference` (key order aside, types included)."""
    call = parse_tool_call(text, tools)
    return call is not None and canonical(call) == canonical(reference)


def _bad_tools(what: str, rule: str) -> DataError:
    return DataError(what, rule, "correct tools.json (`python -m tasks.data.corpus` writes the built-in one)")
