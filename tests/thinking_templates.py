"""Chat templates with the traits of models that think, and replies as such models write them.

None is a copy: each does to thoughts what is said of its family.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import tiny

_SPLIT = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}"
    "{% endif %}"
)
_CHATML = ("<|im_start|>", "<|im_end|>")
_LAST_USER = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}"
    "{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
)
_TAKE_APART = (
    "{% set r = '' %}{% if '</think>' in c %}"
    "{% set r = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
)
SMOLLM3 = (
    "{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}" + _SPLIT
    + "{% set mode = '/think' if enable_thinking else '/no_think' %}"
    "{% if '/no_think' in system %}{% set mode = '/no_think' %}"
    "{% elif '/think' in system %}{% set mode = '/think' %}{% endif %}"
    "{% set own = system.replace('/no_think', '').replace('/think', '').rstrip() %}"
    "{{ '<|im_start|>system\n## Metadata\n\nReasoning Mode: ' + mode + '\n\n' }}"
    "{{ '## Custom Instructions\n\n' + (own or 'Use <|begin_of_thought|>.') + '<|im_end|>\n' }}"
    "{% for m in rest %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and mode == '/no_think' %}{{ '<think>\n\n</think>\n' }}{% endif %}"
    "{{ m.content.lstrip('\n') + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if mode == '/no_think' %}{{ '<think>\n\n</think>\n' }}{% endif %}{% endif %}"
)  # fmt: skip
_QWEN3 = (
    _LAST_USER + "{% for m in messages %}{% set c = m.content %}"
    "{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}" + _TAKE_APART + "{% if loop.index0 > ns.last %}"
    "{{ '<think>\n' + r + '\n</think>\n\n' }}{% endif %}{% endif %}{{ c + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
)  # fmt: skip
QWEN3 = (
    _QWEN3 + "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
QWEN3_THINKING = _QWEN3 + "{{ '<think>\n' }}{% endif %}"
DEEPSEEK31 = (
    "{{ bos_token }}" + _SPLIT + "{{ system }}{% for m in rest %}{% if m.role == 'user' %}"
    "{{ '<|User|>' + m.content }}{% else %}"
    "{{ '<|Assistant|></think>' + m.content.split('</think>', 1)[-1] + '<|end_of_sentence|>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|Assistant|>' + ('<think>' if thinking else '</think>') }}{% endif %}"
)
GRANITE = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}"
    "{% set system = 'Made for tests.' %}{% if thinking %}"
    "{% set system = system + ' Think in <think></think>, answer in <response></response>.' %}"
    "{% endif %}{% endif %}"
    "{{ '<|start_of_role|>system<|end_of_role|>' + system + '<|end_of_text|>\n' }}"
    "{% for m in rest %}{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content"
    " + '<|end_of_text|>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)
NEMOTRON = (
    "{{ bos_token }}" + _SPLIT + "{{ '<|start_header_id|>system<|end_header_id|>\n\n' }}"
    "{{ (system or 'detailed thinking on') + '<|eot_id|>' }}{% for m in rest %}"
    "{% set c = m.content.split('</think>')[-1].lstrip() %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + c | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
NEMOTRON_NANO = (
    _SPLIT + "{{ '<SPECIAL_10>System\n' + system.replace('/no_think', '').strip() + '\n' }}"
    "{% for m in rest %}{{ '<SPECIAL_11>' + m.role + '\n' }}"
    "{{ m.content.split('</think>')[-1].strip() + '\n' }}"
    "{% if m.role == 'assistant' %}{{ '<SPECIAL_12>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<SPECIAL_11>assistant\n' }}"
    "{{ '<think></think>' if '/no_think' in system else '<think>\n' }}{% endif %}"
)
MAGISTRAL = (
    "{{ bos_token }}" + _SPLIT + "{{ '[SYSTEM_PROMPT]' }}"
    "{{ system or 'First think: [THINK]Your thoughts.[/THINK]Here, your answer.' }}"
    "{{ '[/SYSTEM_PROMPT]' }}{% for m in rest %}{% if m.role == 'user' %}"
    "{{ '[INST]' + m.content + '[/INST]' }}{% else %}{{ m.content + eos_token }}{% endif %}"
    "{% endfor %}"
)
GLM45 = (
    "[gMASK]<sop>" + _LAST_USER + "{% for m in messages %}{% set c = m.content %}"
    "{{ '<|' + m.role + '|>\n' }}{% if m.role == 'assistant' %}" + _TAKE_APART
    + "{% if loop.index0 > ns.last and r %}{{ '<think>' + r.strip() + '</think>' }}"
    "{% else %}{{ '<think></think>' }}{% endif %}{{ '\n' + c.strip() }}{% else %}{{ c }}"
    "{% if m.role == 'user' and enable_thinking is defined and not enable_thinking %}"
    "{{ '/nothink' }}{% endif %}{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|assistant|>' }}{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '\n<think></think>' }}{% endif %}{% endif %}"
)  # fmt: skip
KIMI = (
    "{% for m in messages %}{{ '<|im_' + m.role + '|>' + m.role + '<|im_middle|>' }}"
    "{% if m.role == 'assistant' %}{{ '<think></think>' }}{% endif %}"
    "{{ m.content.split('</think>')[-1] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_assistant|>assistant<|im_middle|>' }}{% endif %}"
)
HUNYUAN = (
    _SPLIT + "{{ '<|hy_begin|>' + system }}{% for m in rest %}"
    "{% set c = m.content %}{% if '<answer>' in c and not loop.last %}"
    "{% set c = c.split('<answer>')[-1].split('</answer>')[0].strip() %}{% endif %}"
    "{{ ('<|hy_User|>' if m.role == 'user' else '<|hy_Assistant|>') + c }}"
    "{{ '<|hy_eos|>' if m.role == 'assistant' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|hy_Assistant|>' }}"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n' }}{% endif %}{% endif %}"
)
EXAONE_DEEP = (
    "{% for m in messages %}{{ '[|' + m.role + '|]' }}"
    "{{ m.content.split('</thought>')[-1].lstrip('\n') }}"
    "{{ '\n' if m.role == 'user' else '[|endofturn|]\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[|assistant|]<thought>\n' }}{% endif %}"
)
COMMAND_A = (
    "{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|><|' + m.role + '|>' }}"
    "{% if m.role == 'assistant' %}{{ '<|START_RESPONSE|>' + m.content + '<|END_RESPONSE|>' }}"
    "{% else %}{{ m.content }}{% endif %}{{ '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|assistant|>' }}"
    "{% if reasoning is defined and not reasoning %}"
    "{{ '<|START_THINKING|><|END_THINKING|>' }}{% endif %}{% endif %}"
)
SEED = (
    "{% for m in messages %}{{ '<seed:bos>' + m.role + '\n' + m.content + '<seed:eos>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<seed:bos>assistant\n' }}"
    "{% if thinking_budget == 0 %}{{ '<seed:think></seed:think>' }}{% endif %}{% endif %}"
)
GEMMA4 = (
    "{{ bos_token }}" + _SPLIT + "{% if system or enable_thinking %}{{ '<|turn>system\n' }}"
    "{{ ('<|think|>\n' if enable_thinking else '') + system | trim + '<turn|>\n' }}{% endif %}"
    "{% for m in rest %}{{ '<|turn>' + ('model' if m.role == 'assistant' else 'user') + '\n' }}"
    "{{ m.content.split('<channel|>')[-1].split('<|channel>')[0] | trim + '<turn|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|turn>model\n' }}"
    "{% if not enable_thinking %}{{ '<|channel>thought\n<channel|>' }}{% endif %}{% endif %}"
)
OLMO3 = (
    _SPLIT + "{{ '<|im_start|>system\n' + system + ' <functions></functions><|im_end|>\n' }}"
    "{% for m in rest %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{{ eos_token if loop.last and m.role == 'assistant' else '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>' }}{% endif %}"
)
"""Its last turn ends otherwise than those before it, with which its replies end."""
GRANITE_CONTROLS = (
    "{% for m in messages %}{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content"
    " + '<|end_of_text|>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_of_role|>assistant' + (' ' + controls | tojson if controls else '') }}"
    "{{ '<|end_of_role|>' }}{% endif %}"
)
"""Says how to reply in a header that stands nowhere else."""
MINIMAX = (
    _SPLIT + "{{ ']~!b[]~b]system\n' + (system or 'Made for tests.') + '[e~[\n' }}"
    "{% for m in rest %}{% set c = m.content %}{% if m.role == 'assistant' %}" + _TAKE_APART
    + "{{ ']~b]ai\n' }}{% if r and loop.last %}{{ '<think>\n' + r + '\n</think>\n\n' }}{% endif %}"
    "{{ c + '[e~[\n' }}{% else %}{{ ']~b]user\n' + c + '[e~[\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ']~b]ai\n<think>\n' }}{% endif %}"
)  # fmt: skip
GLM47 = (
    "[gMASK]<sop>" + _LAST_USER + "{% for m in messages %}{% set c = m.content %}"
    "{{ '<|' + m.role + '|>' }}{% if m.role == 'assistant' %}" + _TAKE_APART
    + "{{ '<think>' + r.strip() if loop.index0 > ns.last and r }}{{ '</think>' + c.strip() }}"
    "{% else %}{{ c }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|assistant|>' }}"
    "{{ '</think>' if enable_thinking is defined and not enable_thinking else '<think>' }}"
    "{% endif %}"
)  # fmt: skip
NEMOTRON3 = (
    _SPLIT + "{{ '<|im_start|>system\n' + system + '<|im_end|>\n' }}{% for m in rest %}"
    "{% set c = m.content %}{% if m.role == 'assistant' and '</think>' not in c %}"
    "{% set c = '<think></think>' + c %}{% endif %}{% if m.role == 'assistant' and not loop.last %}"
    "{% set c = '<think></think>' + c.split('</think>')[-1] %}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + c | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{{ '<think></think>' if enable_thinking is defined and not enable_thinking else '<think>\n' }}"
    "{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class ThinkingModel:
    """A template with one setting, and a reply to it.

    Attributes:
        tokens: control tokens beside bos and eos.
        args: of the template.
        written: what the model writes after the generation prompt, its end of turn among it.
        text: the content of the message that is kept.
    """

    template: str
    tokens: tuple[str, ...]
    args: dict[str, Any] = field(default_factory=dict)
    written: str
    text: str


_OFF = {"enable_thinking": False}
_DEEPSEEK = ("<|User|>", "<|Assistant|>", "<|end_of_sentence|>")
_GRANITE = ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>")
_HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_SPECIAL = ("<SPECIAL_10>", "<SPECIAL_11>", "<SPECIAL_12>")
_GLM = ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>")
_KIMI = ("<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>")
_HY = ("<|hy_begin|>", "<|hy_User|>", "<|hy_Assistant|>", "<|hy_eos|>")
_EXAONE = ("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]")
_COMMAND = (
    *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|system|>", "<|user|>"),
    *("<|assistant|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    *("<|START_THINKING|>", "<|END_THINKING|>"),
)
_SEED = ("<seed:bos>", "<seed:eos>", "<seed:think>", "</seed:think>")
_GEMMA = ("<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>")
_MAGISTRAL = (
    *("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    *("[THINK]", "[/THINK]"),
)


def _of(
    template: str, tokens: tuple[str, ...], written: str, text: str, **args: Any
) -> ThinkingModel:
    return ThinkingModel(template=template, tokens=tokens, args=args, written=written, text=text)


_THOUGHT = "<think>\nWell.\n</think>\n"
THINKING: dict[str, ThinkingModel] = {
    "smollm3": _of(SMOLLM3, _CHATML, _THOUGHT + "Aye.<|im_end|>", _THOUGHT + "Aye."),
    "smollm3, off": _of(SMOLLM3, _CHATML, "Aye.<|im_end|>", "Aye.", **_OFF),
    "qwen3": _of(QWEN3, _CHATML, _THOUGHT + "\nAye.<|im_end|>", _THOUGHT + "\nAye."),
    "qwen3, off": _of(QWEN3, _CHATML, "Aye.<|im_end|>", "Aye.", **_OFF),
    "qwen3 thinking": _of(
        QWEN3_THINKING, _CHATML, "Well.\n</think>\n\nAye.<|im_end|>", _THOUGHT + "\nAye."
    ),
    # the template would write other white space around the thought
    "qwen3 thinking, spaced": _of(
        QWEN3_THINKING, _CHATML, "Well.\n\n</think>\nAye.<|im_end|>",
        "<think>\nWell.\n\n</think>\nAye.",
    ),
    "deepseek 3.1": _of(
        DEEPSEEK31, _DEEPSEEK, "Well.</think>Aye.<|end_of_sentence|>",
        "<think>Well.</think>Aye.", thinking=True,
    ),
    "deepseek 3.1, off": _of(DEEPSEEK31, _DEEPSEEK, "Aye.<|end_of_sentence|>", "Aye."),
    "granite": _of(
        GRANITE, _GRANITE, "<think>Well.</think><response>Aye.</response><|end_of_text|>",
        "<think>Well.</think><response>Aye.</response>", thinking=True,
    ),
    "nemotron": _of(NEMOTRON, _HEADERS, _THOUGHT + "\nAye.<|eot_id|>", _THOUGHT + "\nAye."),
    "nemotron nano": _of(
        NEMOTRON_NANO, _SPECIAL, "Well.\n</think>\nAye.\n<SPECIAL_12>", _THOUGHT + "Aye.\n"
    ),
    "magistral": _of(MAGISTRAL, _MAGISTRAL, "[THINK]Well.[/THINK]Aye.</s>", "Aye."),
    "glm 4.5": _of(
        GLM45, _GLM, "\n<think>Well.</think>\nAye.<|user|>", "<think>Well.</think>\nAye."
    ),
    "glm 4.5, off": _of(GLM45, _GLM, "\nAye.<|user|>", "Aye.", **_OFF),
    "kimi": _of(KIMI, _KIMI, "<think>Well.</think>Aye.<|im_end|>", "<think>Well.</think>Aye."),
    "hunyuan": _of(
        HUNYUAN, _HY, _THOUGHT + "<answer>\nAye.\n</answer><|hy_eos|>",
        _THOUGHT + "<answer>\nAye.\n</answer>",
    ),
    "hunyuan, off": _of(HUNYUAN, _HY, "Aye.<|hy_eos|>", "<think>\n\n</think>\nAye.", **_OFF),
    "exaone deep": _of(
        EXAONE_DEEP, _EXAONE, "Well.\n</thought>\n\nAye.[|endofturn|]",
        "<thought>\nWell.\n</thought>\n\nAye.",
    ),
    "command a": _of(
        COMMAND_A, _COMMAND,
        "<|START_THINKING|>Well.<|END_THINKING|><|START_RESPONSE|>Aye.<|END_RESPONSE|>", "Aye.",
    ),
    "command a, off": _of(
        COMMAND_A, _COMMAND, "<|START_RESPONSE|>Aye.<|END_RESPONSE|>", "Aye.", reasoning=False
    ),
    "seed": _of(SEED, _SEED, "\n<seed:think>Well.</seed:think>Aye.<seed:eos>", "Aye."),
    "seed, off": _of(SEED, _SEED, "Aye.<seed:eos>", "Aye.", thinking_budget=0),
    "gemma 4": _of(
        GEMMA4, _GEMMA, "<|channel>thought\nWell.<channel|>Aye.<turn|>", "Aye.",
        enable_thinking=True,
    ),
    "olmo 3": _of(
        OLMO3, _CHATML, "Well.</think>Aye.<|im_end|>", "<think>Well.</think>Aye."
    ),
    "granite, controls": _of(
        GRANITE_CONTROLS, _GRANITE, "Aye.<|end_of_text|>", "Aye.", controls={"length": "short"}
    ),
    "minimax m2": _of(
        MINIMAX, ("]~!b[", "]~b]", "[e~["), "Well.\n</think>\nAye.[e~[", _THOUGHT + "Aye."
    ),
    "glm 4.7": _of(GLM47, _GLM, "Well.</think>Aye.<|user|>", "<think>Well.</think>Aye."),
    "glm 4.7, off": _of(GLM47, _GLM, "Aye.<|user|>", "Aye.", **_OFF),
    "nemotron 3": _of(
        NEMOTRON3, _CHATML, "Well.\n</think>Aye.<|im_end|>", "<think>\nWell.\n</think>Aye."
    ),
    "nemotron 3, off": _of(NEMOTRON3, _CHATML, "Aye.<|im_end|>", "Aye.", **_OFF),
    "gemma 4, off": _of(GEMMA4, _GEMMA, "Aye.<turn|>", "Aye."),
}  # fmt: skip
for _model in THINKING.values():
    tiny.CONTROL_TOKENS[_model.template] = _model.tokens
