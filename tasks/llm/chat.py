"""The conversation that turns a written command into a tool call, and back.

One short system prompt, the written command, and a compact JSON object whose `name` comes first, so
that the model decides what is asked before it copies the arguments. Prompts are always rendered by the
tokenizer's own chat template. Not here: token ids (`packing.py`) and engines (`tasks.inference`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from tasks.artifacts import read_json
from tasks.errors import DataError, ModelError

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


def chat_template(tokenizer: Any) -> str:
    """The chat template in use: of several named ones that called `default`, which holds no tools.

    Raises:
        ModelError: there is none.
    """
    found = tokenizer.chat_template
    if isinstance(found, Mapping):
        found = found.get("default")
    if not isinstance(found, str) or not found.strip():
        names = ", ".join(tokenizer.chat_template) if isinstance(tokenizer.chat_template, Mapping) else "none"
        raise ModelError(
            f"the tokenizer has no chat template in use (named templates: {names})",
            "needs a chat_template, or one named default among several",
            "choose an instruction-tuned base model, or give the template the name default in "
            "tokenizer_config.json",
        )
    return found


def render_plainly(
    template: str, conversation: Sequence[Mapping[str, str]], *, bos: str | None, eos: str | None
) -> str:
    """A conversation as a chat server renders it from the template in a GGUF: without Python's additions.

    Raises:
        jinja2.TemplateError: the template refuses the conversation, or needs what a server does not have.
    """
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        messages=list(conversation), add_generation_prompt=True, bos_token=bos, eos_token=eos
    )


def conversation_refusals(tokenizer: Any, name: str) -> list[ModelError]:
    """Why the chat template of a tokenizer cannot carry the conversations of this project; all reasons.

    It must render a system message, a question and an answer, and a question alone; keep what is asked; end
    the answer with the end-of-turn token that the model is trained to say; and render alike in a server.

    Args:
        name: of the model, for the messages.
    """
    try:
        template = chat_template(tokenizer)
    except ModelError as error:
        return [ModelError(f"{name}: {error.what}", error.rule, error.next_step)]
    eos = tokenizer.eos_token
    if eos is None:
        return [_bad_template(name, "the tokenizer has no eos_token", "an answer needs an end-of-turn token")]
    asked, answer = "거실 불 켜 줘", '{"name":"set_light","arguments":{"room":"거실"}}'
    found: list[ModelError] = []
    for what, conversation in {
        "a system message and a question": messages(asked),
        "a question alone": messages(asked)[1:],
    }.items():
        with _collected(found):
            prompt = _rendered(tokenizer, name, what, conversation, add_generation_prompt=True)
            if asked not in prompt:
                raise _bad_template(name, f"drops the question of {what}", "a prompt must hold it")
            if prompt != _served(template, name, conversation, bos=tokenizer.bos_token, eos=eos):
                raise _bad_template(name, f"renders {what} otherwise in a server", "both must render alike")
    if not found:
        with _collected(found):
            whole = [*messages(asked), {"role": "assistant", "content": answer}]
            _require_end(_rendered(tokenizer, name, "an answer", whole), answer, eos, name)
    return found


def require_conversation(tokenizer: Any, name: str) -> None:
    """Raises ModelError with the first of `conversation_refusals`, where there is one."""
    for refusal in conversation_refusals(tokenizer, name):
        raise refusal


@contextmanager
def _collected(found: list[ModelError]) -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        found.append(error)


def _rendered(
    tokenizer: Any, name: str, what: str, conversation: list[dict[str, str]], **options: Any
) -> str:
    try:
        return str(tokenizer.apply_chat_template(conversation, tokenize=False, **options))
    except Exception as error:  # a template is a program, with errors of every kind
        rule = (
            "training and evaluation render a system message, a question and an answer, or a question alone"
        )
        raise _bad_template(name, f"refuses {what} ({_first_line(error)})", rule) from error


def _served(template: str, name: str, conversation: list[dict[str, str]], **tokens: Any) -> str:
    try:
        return render_plainly(template, conversation, **tokens)
    except Exception as error:
        rule = "the template in a GGUF is rendered without what Python adds to it"
        raise _bad_template(name, f"needs more than a server has ({_first_line(error)})", rule) from error


def _require_end(whole: str, answer: str, eos: str, name: str) -> None:
    """The token that training teaches as the end of an answer is the one that the template ends it with."""
    _, there, after = whole.rpartition(answer)
    if not there:
        raise _bad_template(name, "changes or drops the answer", "it must stand as it is")
    if not after.lstrip().startswith(eos):
        rule = f"the eos_token {eos!r} must end an answer: a server stops at the template's own"
        raise _bad_template(name, f"ends an answer with {after.strip()[:40]!r}", rule)


def _bad_template(name: str, what: str, rule: str) -> ModelError:
    return ModelError(
        f"the chat template of {name} {what}",
        rule,
        "choose another instruction-tuned base model (base_llm.model), or correct its chat_template.jinja or "
        "tokenizer_config.json",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


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
