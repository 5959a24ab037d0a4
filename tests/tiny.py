"""A tiny random instruct model, built from a config: the whole chain runs offline in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

CHATML = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


LLAMA3 = (
    "{{ bos_token }}{{ '<|start_header_id|>system<|end_header_id|>\n\nToday: ' }}"
    "{% if date_string is defined %}{{ date_string }}"
    "{% else %}{{ strftime_now('%d %b %Y') }}{% endif %}{{ '\n\n' }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}"
    "{% set messages = messages[1:] %}{% endif %}{{ '<|eot_id|>' }}"
    "{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] | trim }}{{ '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
"""Strips contents and writes the date."""

QWEN3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] }}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Writes an empty thought before the last reply."""

_ALTERNATE = (
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    + _ALTERNATE
    + "{% if m['role'] == 'assistant' %}{% set role = 'model' %}"
    "{% else %}{% set role = m['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
"""Refuses the system role, strips contents."""

MISTRAL = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ bos_token }}{% for m in messages %}" + _ALTERNATE + "{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + (system if loop.first else '') + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
"""Puts the system prompt into the first user's turn; a user's turn ends with plain text."""

PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
"""Its control tokens swallow the white space behind them."""

CONTROL_TOKENS = {
    CHATML: ("<|im_start|>", "<|im_end|>"),
    LLAMA3: ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    QWEN3: ("<|im_start|>", "<|im_end|>"),
    GEMMA: ("<start_of_turn>", "<end_of_turn>"),
    MISTRAL: (),
    PHI3: ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
}
TEMPLATES = {
    "chatml": CHATML,
    "llama3": LLAMA3,
    "qwen3": QWEN3,
    "gemma": GEMMA,
    "mistral": MISTRAL,
    "phi3": PHI3,
}


def tokenizer(template: str = CHATML, *, merges: bool = False) -> PreTrainedTokenizerFast:
    """Make a byte-level tokenizer: 256 bytes and a template's control tokens.

    As in Llama 3, a header token is a control token without being the tokenizer's bos or eos.

    Args:
        merges: also some pairs of bytes that stand in any English text, and across word borders.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    chatml = template == CHATML or template not in CONTROL_TOKENS
    bos, eos = CONTROL_TOKENS[CHATML] if chatml else ("<s>", "</s>")
    other = () if chatml else CONTROL_TOKENS[template]
    special = ["<|endoftext|>", bos, eos, *other]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("Ġ", "t"), ("h", "e"), ("i", "n"), ("e", "r"), ("s", "Ġ"), ("?", "Ċ"), ("Ġ", "x")]
    pairs = pairs if merges else []
    names = [*special, *alphabet, *(a + b for a, b in pairs)]
    inner = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=pairs))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    swallow = template == PHI3
    inner.add_special_tokens([AddedToken(name, special=True, rstrip=swallow) for name in other])
    build: type[Any] = PreTrainedTokenizerFast  # its constructor has no types
    out: PreTrainedTokenizerFast = build(
        tokenizer_object=inner,
        bos_token=bos,
        eos_token=eos,
        pad_token="<|endoftext|>",
        additional_special_tokens=special if chatml else None,
    )
    out.chat_template = template
    return out


def model(seed: int = 0, *, family: str = "llama", **changes: Any) -> PreTrainedModel:
    """Make a random model of 4 blocks, d_model 32; families with windows see 8 tokens back."""
    import torch
    import transformers

    torch.manual_seed(seed)
    shape = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.2,  # large enough that tokens differ in what follows them
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    kind, own = FAMILIES[family]
    if family == "llama":
        shape = {k: v for k, v in shape.items() if not k.endswith("token_id")}
    config = getattr(transformers, f"{kind}Config" if kind != "Gemma3" else "Gemma3TextConfig")
    network = getattr(transformers, f"{kind}ForCausalLM")
    settings = {**shape, **own, **changes}
    if "layer_types" in settings:
        settings["layer_types"] = settings["layer_types"][: settings["num_hidden_layers"]]
    made: PreTrainedModel = network(config(**settings)).eval()
    return made


FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "qwen3": ("Qwen3", {"head_dim": 8, "tie_word_embeddings": False}),
    "gemma": ("Gemma", {"head_dim": 8}),
    "gemma3": (
        "Gemma3",
        {
            "head_dim": 8,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    "mistral": ("Mistral", {"sliding_window": 8, "head_dim": 8}),
    "phi3": ("Phi3", {}),
    "gpt_neox": ("GPTNeoX", {"hidden_act": "gelu", "num_key_value_heads": None}),
}


def save_adapter(folder: Path, *, seed: int = 0) -> Path:
    """Make a LoRA adapter of `model()` that does something."""
    import torch
    from peft import LoraConfig, get_peft_model

    net = get_peft_model(model(), LoraConfig(r=2, target_modules=["q_proj", "up_proj"]))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, values in net.named_parameters():
            if "lora_" in name:
                values.normal_(std=0.3)
    net.save_pretrained(str(folder))
    return folder


def save(
    folder: Path, *, seed: int = 0, template: str = CHATML, family: str = "llama", **changes: Any
) -> Path:
    """Write a tiny model and its tokenizer in transformers' layout."""
    model(seed, family=family, **changes).save_pretrained(folder)
    tokenizer(template).save_pretrained(folder)
    return folder
