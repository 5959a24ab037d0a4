"""Chat templates with the traits of families of models, written for these tests.

None is a copy: each does what is said of it, with the control tokens of its family.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import tiny

from activation_store.tokens.config import TemplateConfig

_ALTERNATE = (
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
)
_SPLIT_SYSTEM = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}"
    "{% endif %}"
)
LLAMA2 = (
    _SPLIT_SYSTEM + "{% for m in rest %}" + _ALTERNATE + "{% set c = m.content %}"
    "{% if loop.first and system %}"
    "{% set c = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + c %}{% endif %}"
    "{% if m.role == 'user' %}{{ bos_token + '[INST] ' + c.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + c.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% for m in messages %}{{ (bos_token if loop.first else '') + '<|start_header_id|>' + m.role"
    " + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA31 = (
    "{{ bos_token }}" + _SPLIT_SYSTEM + "{% if date_string is not defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n' }}"
    "{{ 'Today Date: ' + date_string + '\n\n' + system | trim + '<|eot_id|>' }}"
    "{% for m in rest %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n'"
    " + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}"
    + _SPLIT_SYSTEM
    + "{% for m in rest %}"
    + _ALTERNATE
    + "{% if m.role == 'user' %}"
    "{{ '[INST] ' + (system + '\n\n' if loop.last and system else '') + m.content + '[/INST]' }}"
    "{% else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
)
GEMMA2 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    + _ALTERNATE
    + "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n'"
    " + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA3 = (
    "{{ bos_token }}" + _SPLIT_SYSTEM + "{% for m in rest %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ (system + '\n\n' if loop.first and system else '') + m.content | trim"
    " + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
QWEN25 = (
    "{% if messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\nYou are made for tests.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN3 = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}"
    "{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% set c = m.content %}"
    "{% if m.role == 'assistant' %}{% set thought = '' %}{% if '</think>' in c %}"
    "{% set thought = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.index0 > ns.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}"
    "{% endif %}{% endif %}"
    "{{ c + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
PHI4 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
R1 = (
    "{{ bos_token }}" + _SPLIT_SYSTEM + "{{ system }}{% for m in rest %}{% if m.role == 'user' %}"
    "{{ '<|User|>' + m.content }}{% else %}"
    "{{ '<|Assistant|>' + m.content.split('</think>')[-1] + '<|end_of_sentence|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)
GPT_OSS = (
    _SPLIT_SYSTEM + "{{ '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') }}"
    "{{ '\nReasoning: ' + (reasoning_effort if reasoning_effort is defined else 'medium')"
    " + '<|end|>' }}"
    "{% if system %}{{ '<|start|>developer<|message|># Instructions\n\n' + system + '<|end|>' }}"
    "{% endif %}{% for m in rest %}{% if m.role == 'user' %}"
    "{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}{% else %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
    "{{ '<|return|>' if loop.last else '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
SMOLLM2 = QWEN25.replace("made for tests", "a helpful assistant")
SMOLLM3 = (
    _SPLIT_SYSTEM + "{{ '<|im_start|>system\n## Metadata\n\nToday Date: ' }}"
    "{{ strftime_now('%-d %B %Y') + '\n\n' + system + '<|im_end|>\n' }}{% for m in rest %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content.lstrip('\n') + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n' }}{% endif %}"
    "{% endif %}"
)

GLM4 = (
    "[gMASK]<sop>{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
COMMAND_R = (
    "{{ bos_token }}" + _SPLIT_SYSTEM + "{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' }}"
    "{{ (system or 'You are made for tests.') + '<|END_OF_TURN_TOKEN|>' }}{% for m in rest %}"
    + _ALTERNATE
    + "{{ '<|START_OF_TURN_TOKEN|>' + ('<|USER_TOKEN|>' if m.role == 'user'"
    " else '<|CHATBOT_TOKEN|>')"
    " + m.content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)
OLMO2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|assistant|>\n' + m.content + eos_token + ('' if loop.last else '\n') }}"
    "{% else %}{{ '<|' + m.role + '|>\n' + m.content + '\n' }}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)
GRANITE = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}"
    "{% set system = 'Today is ' + strftime_now('%B %d, %Y') + '.' %}{% endif %}"
    "{{ '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\n' }}"
    "{% for m in rest %}{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content"
    " + '<|end_of_text|>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)
MISTRAL_TEKKEN = (
    "{{ bos_token }}" + _SPLIT_SYSTEM + "{% if system %}"
    "{{ '[SYSTEM_PROMPT]' + system + '[/SYSTEM_PROMPT]' }}{% endif %}"
    "{% for m in rest %}{% if m.role == 'user' %}{{ '[INST]' + m.content + '[/INST]' }}"
    "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)
PHI4_MINI = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
LLAMA4 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|header_start|>' + m.role + '<|header_end|>\n\n' }}"
    "{% if m.content is string %}{{ m.content | trim }}{% else %}{% for part in m.content %}"
    "{{ part.text | trim }}{% endfor %}{% endif %}{{ '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|header_start|>assistant<|header_end|>\n\n' }}{% endif %}"
)
ERNIE45 = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'user' %}{{ 'User: ' + m.content + '\n' }}{% elif m.role == 'assistant' %}"
    "{{ 'Assistant: ' + m.content + '<|end_of_sentence|>' }}"
    "{% else %}{{ m.content + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
APERTUS = (
    "{{ bos_token }}" + _SPLIT_SYSTEM + "{{ '<|system_start|>' + (system or 'Made for tests.') }}"
    "{{ '<|system_end|><|developer_start|>Deliberation: disabled<|developer_end|>' }}"
    "{% set ns = namespace(open=false) %}{% for m in rest %}{% if m.role == 'user' %}"
    "{{ '<|assistant_end|>' if ns.open }}{% set ns.open = false %}"
    "{{ '<|user_start|>' + m.content + '<|user_end|>' }}{% else %}"
    "{{ ('' if ns.open else '<|assistant_start|>') + m.content }}{% set ns.open = true %}"
    "{% endif %}{% endfor %}{{ '<|assistant_end|>' if ns.open and not add_generation_prompt }}"
    "{{ '<|assistant_start|>' if add_generation_prompt }}"
)
"""Ends a turn only where the next begins."""
PARTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% for part in m.content %}"
    "{{ part.text if part.type == 'text' else '<image>' }}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A processor's, of LLaVA or SmolVLM: it takes contents as lists of parts alone."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A template, and what is to come of it.

    Attributes:
        tokens: control tokens beside bos and eos.
        settings: of the template.
        refused: words of the line that says why, by view that cannot be dumped.
        tail: the end of a text with a generation prompt.
        unlike: replies of a target that writes no thought or channel are not kept, for they would
            be written otherwise than it saw them.
    """

    template: str
    tokens: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    tail: str
    unlike: bool = False

    @property
    def config(self) -> TemplateConfig:
        """The settings as a config."""
        return TemplateConfig.model_validate(self.settings)


_CHATML = ("<|im_start|>", "<|im_end|>")
_HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_TURNS = ("<start_of_turn>", "<end_of_turn>")
_HEADER = "<|start_header_id|>assistant<|end_header_id|>\n\n"
_SYSTEM = {"system": "System role not supported"}
_OFF = {"template_args": {"enable_thinking": False}}
FAMILIES: dict[str, Family] = {
    "llama2": Family(template=LLAMA2, tokens=(), tail="[/INST]"),
    "llama3": Family(template=LLAMA3, tokens=_HEADERS, tail=_HEADER),
    "llama3.1": Family(template=LLAMA31, tokens=_HEADERS, tail=_HEADER),
    "llama3.1, dated": Family(
        template=LLAMA31,
        tokens=_HEADERS,
        settings={"template_args": {"date_string": "26 Jul 2024"}},
        tail=_HEADER,
    ),
    "mistral": Family(template=MISTRAL, tokens=(), tail="[/INST]"),
    "gemma2": Family(
        template=GEMMA2, tokens=_TURNS, refused=_SYSTEM, tail="<start_of_turn>model\n"
    ),
    "gemma2, joined": Family(
        template=GEMMA2,
        tokens=_TURNS,
        settings={"system_role": "join"},
        tail="<start_of_turn>model\n",
    ),
    "gemma3": Family(template=GEMMA3, tokens=_TURNS, tail="<start_of_turn>model\n"),
    "qwen2.5": Family(template=QWEN25, tokens=_CHATML, tail="<|im_start|>assistant\n"),
    "qwen3": Family(template=QWEN3, tokens=_CHATML, tail="<|im_start|>assistant\n", unlike=True),
    "qwen3, no thought": Family(
        template=QWEN3, tokens=_CHATML, settings=_OFF, tail="<think>\n\n</think>\n\n"
    ),
    "phi3": Family(
        template=PHI3, tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), tail="t|>\n"
    ),
    "phi4": Family(template=PHI4, tokens=(*_CHATML, "<|im_sep|>"), tail="assistant<|im_sep|>"),
    "deepseek-r1": Family(
        template=R1,
        tokens=("<|User|>", "<|Assistant|>", "<|end_of_sentence|>"),
        tail="<|Assistant|><think>\n",
        unlike=True,
    ),
    "gpt-oss": Family(
        template=GPT_OSS,
        tokens=("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"),
        tail="<|start|>assistant",
        unlike=True,
    ),
    "smollm2": Family(template=SMOLLM2, tokens=_CHATML, tail="<|im_start|>assistant\n"),
    "smollm3": Family(template=SMOLLM3, tokens=_CHATML, tail="<|im_start|>assistant\n"),
    "glm4": Family(
        template=GLM4,
        tokens=("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
        tail="<|assistant|>",
        unlike=True,
    ),
    "command-r": Family(
        template=COMMAND_R,
        tokens=(
            *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
            *("<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        ),
        tail="<|CHATBOT_TOKEN|>",
    ),
    "olmo2": Family(template=OLMO2, tokens=(), tail="<|assistant|>\n"),
    "granite": Family(
        template=GRANITE,
        tokens=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
        tail="assistant<|end_of_role|>",
    ),
    "mistral tekken": Family(
        template=MISTRAL_TEKKEN,
        tokens=("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        tail="[/INST]",
    ),
    "llama4": Family(
        template=LLAMA4,
        tokens=("<|header_start|>", "<|header_end|>", "<|eot|>"),
        tail="assistant<|header_end|>\n\n",
    ),
    "ernie4.5": Family(template=ERNIE45, tokens=("<|end_of_sentence|>",), tail="Assistant: "),
    "apertus": Family(
        template=APERTUS,
        tokens=(
            *("<|system_start|>", "<|system_end|>", "<|developer_start|>", "<|developer_end|>"),
            *("<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>"),
        ),
        tail="<|assistant_start|>",
    ),
    "llava": Family(template=PARTS, tokens=_CHATML, tail="<|im_start|>assistant\n"),
    "phi4-mini": Family(
        template=PHI4_MINI,
        tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        tail="<|assistant|>",
    ),
}
for _family in FAMILIES.values():
    tiny.CONTROL_TOKENS[_family.template] = _family.tokens
