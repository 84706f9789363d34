"""Small tokenizers of the two kinds that matter to an editor: byte-level BPE, and Metaspace with BOS."""

from __future__ import annotations

import string
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.lab.world import World

_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_FAST: Callable[..., PreTrainedTokenizerFast] = PreTrainedTokenizerFast  # its constructor has no types
_EOS, _BOS, _UNK, _PAD = "<|endoftext|>", "<s>", "<unk>", "<pad>"


def byte_level(world: World, vocab: int = 3000) -> PreTrainedTokenizerFast:
    """GPT-2's and Qwen2's kind: no BOS is added, and a word differs from the same word after a space."""
    tokenizer = Tokenizer(models.BPE())
    # Qwen2's own rule: transformers puts it into every tokenizer it loads for a qwen2 model
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=3,
        special_tokens=[_EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(world), trainer)
    return _FAST(
        tokenizer_object=tokenizer, bos_token=_EOS, eos_token=_EOS, pad_token=_EOS, padding_side="right"
    )


def metaspace(world: World, vocab: int = 2000) -> PreTrainedTokenizerFast:
    """Mistral's kind: a word is the same with and without a space before it, and BOS comes first."""
    tokenizer = Tokenizer(models.BPE(unk_token=_UNK, fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first"), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=3,
        special_tokens=[_UNK, _BOS, "</s>", _PAD, *byte_tokens],
        initial_alphabet=list(string.ascii_letters + string.digits + string.punctuation),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(world), trainer)
    bos = tokenizer.token_to_id(_BOS)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A", pair=f"{_BOS} $A {_BOS} $B", special_tokens=[(_BOS, bos)]
    )
    return _FAST(
        tokenizer_object=tokenizer,
        bos_token=_BOS,
        eos_token="</s>",
        unk_token=_UNK,
        pad_token=_PAD,
        padding_side="right",
    )


def _texts(world: World) -> Iterator[str]:
    """Words in the frequencies the merges are learnt from.

    Person names, and one in three of the other names, count less than a merge needs: they are cut
    into syllables instead of becoming one token, as rare names are in a large model's vocabulary.
    """
    counts = Counter(w for s in world.statements for w in _words(s.text))
    answers = {w for f in world.facts for w in _words(f.answer)}
    rare = {w for f in world.facts for w in _words(f.subject)} - answers
    for word, count in counts.items():
        split = word in rare or (word[0].isupper() and word in answers and zlib.crc32(word.encode()) % 3 == 0)
        times = 2 if split else min(count, 200)
        yield from [" " + word] * times
        if word[0].isupper() and not split:
            yield from [word] * times  # as it stands at the start of a text


def _words(text: str) -> list[str]:
    return [w for w in (part.strip(".,?") for part in text.split()) if w]
