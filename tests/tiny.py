"""A tiny random instruct model, built from a config: the whole chain runs offline in seconds."""

from __future__ import annotations

from pathlib import Path

CHATML = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer(template: str = CHATML):
    """A byte-level tokenizer without merges: 256 bytes and three control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: i for i, token in enumerate(special + alphabet)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    out = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=special,
    )
    out.chat_template = template
    return out


def model(seed: int = 0, **changes: int):
    """A random Llama: 4 blocks, d_model 32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

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
    }
    return LlamaForCausalLM(LlamaConfig(**{**shape, **changes})).eval()


def save(folder: Path, *, seed: int = 0, template: str = CHATML, **changes: int) -> Path:
    """Write a tiny model and its tokenizer in transformers' layout."""
    model(seed, **changes).save_pretrained(folder)
    tokenizer(template).save_pretrained(folder)
    return folder
