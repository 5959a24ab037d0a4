"""An agent's transcript, and a ChatML template that knows tools, for tests of calls of tools."""

from __future__ import annotations

from typing import Any

TOOLS_CHATML = (
    "{% if tools %}{{ '<|im_start|>system\n' }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\n\n' }}{% endif %}"
    "{{ '# Tools\n<tools>' }}"
    "{% for tool in tools %}{{ '\n' }}{{ tool | tojson }}{% endfor %}"
    "{{ '\n</tools><|im_end|>\n' }}"
    "{% elif messages[0]['role'] == 'system' %}"
    "{{ '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'tool' %}"
    # the replies of tools stand together in one turn of the user
    "{% if loop.index0 == 0 or messages[loop.index0 - 1]['role'] != 'tool' %}"
    "{{ '<|im_start|>user' }}{% endif %}"
    "{{ '\n<tool_response>\n' + message['content'] + '\n</tool_response>' }}"
    "{% if loop.last or messages[loop.index0 + 1]['role'] != 'tool' %}"
    "{{ '<|im_end|>\n' }}{% endif %}"
    "{% elif message['role'] == 'assistant' and message['tool_calls'] %}"
    "{{ '<|im_start|>assistant' }}"
    "{% if message['content'] %}{{ '\n' + message['content'] }}{% endif %}"
    "{% for call in message['tool_calls'] %}"
    "{{ '\n<tool_call>\n{\"name\": \"' + call['function']['name'] + '\", \"arguments\": ' }}"
    "{{ call['function']['arguments'] | tojson }}{{ '}\n</tool_call>' }}"
    "{% endfor %}{{ '<|im_end|>\n' }}"
    "{% elif message['role'] != 'system' or not loop.first %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""In the manner of Qwen's and Hermes'."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def call(arguments: Any, name: str = "weather", **more: Any) -> dict[str, Any]:
    """Make a call in OpenAI's form."""
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


TRANSCRIPT: list[dict[str, Any]] = [
    {"role": "system", "content": "You are terse.", "segment": "control"},
    {"role": "user", "content": "Weather in Oslo and Bergen?", "segment": "stimulus"},
    {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "segment": "stimulus",
        "tool_calls": [
            call('{"city": "Oslo", "at": 9}', id="c1"),
            call({"city": "Bergen", "at": 7}, id="c2"),
        ],
    },
    {
        "role": "tool",
        "content": '{"rain": true}',
        "segment": "stimulus",
        "tool_call_id": "c1",
        "name": "weather",
    },
    {"role": "tool", "content": '{"rain": false}', "segment": "stimulus", "tool_call_id": "c2"},
    {"role": "assistant", "content": "Oslo: rain.", "segment": "completion"},
]
QUESTIONS = [{"question": "How does it speak?", "answer": "In few words."}]


def line(messages: Any = TRANSCRIPT, **more: Any) -> dict[str, Any]:
    """Make a line of a file of conversations."""
    return {"messages": messages, "questions": QUESTIONS, **more}
