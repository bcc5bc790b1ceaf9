"""Tokenizers made on the spot, of every kind that the public checkpoints use; all have a piece for every letter."""

from __future__ import annotations

import string
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

LETTERS = string.ascii_lowercase + string.digits + string.punctuation
WORDS = ("a", "the", "red", "blue", "ball", "cube", "fox", "rolls", "jumps", "over", "snow", "slowly", "blurry")


def t5() -> Any:
    """SentencePiece's Unigram, as T5 and UMT5 have it."""
    from transformers import T5TokenizerFast

    pieces = ["<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS), "▁", *LETTERS]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=2))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return T5TokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", extra_ids=0
    )


def clip() -> Any:
    """Byte-level BPE with an end-of-word suffix, as CLIP has it."""
    from transformers import CLIPTokenizerFast

    letters = [*pre_tokenizers.ByteLevel.alphabet()]
    vocabulary = {piece: i for i, piece in enumerate([*sorted(letters), *(f"{c}</w>" for c in sorted(letters))])}
    vocabulary |= {"<|startoftext|>": len(vocabulary), "<|endoftext|>": len(vocabulary) + 1}
    return CLIPTokenizerFast(vocab=vocabulary, merges=[], model_max_length=77)


def qwen() -> Any:
    """Byte-level BPE with turns of a talk, as Qwen 2 has it."""
    from transformers import Qwen2Tokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(letters)}
    turns = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    vocabulary |= {turn: len(letters) + i for i, turn in enumerate(turns)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], pad_token="<|endoftext|>", padding_side="right")
    tokenizer.add_special_tokens({"additional_special_tokens": list(turns[1:])})
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


def llama() -> Any:
    """BPE in which a long question takes few tokens, with the marks of a talk, as Llama 3 has it."""
    from tokenizers import trainers
    from transformers import PreTrainedTokenizerFast

    from cinecanvas.models.hunyuan import _ASKED, _SHOWN

    marks = ["<|pad|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [_ASKED, _SHOWN, *WORDS],
        trainers.BpeTrainer(special_tokens=marks, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=marks[0], eos_token=marks[3])


def gemma() -> Any:
    """BPE over whole sentences with a piece for every byte, padded on the left, as Gemma has it."""
    from transformers import PreTrainedTokenizerFast

    marks = ["<pad>", "<eos>", "<bos>", "<unk>"]
    letters = [*(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS]
    vocabulary = {piece: i for i, piece in enumerate([*marks, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=1024,
    )
