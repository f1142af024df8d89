"""The tokenizer: any text survives, ids stay in range, and the file is an ordinary one."""

import copy
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, processors

from mu_ref.errors import InputError
from mu_ref.settings.catalog import DATA
from mu_ref.tokenizer import Tokenizer, train_tokenizer

PATH = DATA / "tokenizer.json"
TOKENIZER = Tokenizer.load(PATH)
# later characters are normalised differently by versions of Unicode that Python and the library
# do not share; those of Unicode 3.2 are settled
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"]).filter(
        lambda c: unicodedata.ucd_3_2_0.category(c) != "Cn"
    )
)


def fold(text: str) -> str:
    # letter by letter, as the library does: str.lower() looks at neighbours of a sigma
    return "".join(c.lower() for c in unicodedata.normalize("NFKC", text))


@given(TEXTS)
def test_any_text_survives_but_for_case_and_compatibility_forms(text: str) -> None:
    tokens = TOKENIZER.encode(text)
    assert all(3 <= token < TOKENIZER.vocab_size for token in tokens)
    assert TOKENIZER.decode(tokens) == fold(text)


def test_the_shipped_tokenizer_has_1536_tokens_and_the_three_special_ones() -> None:
    assert TOKENIZER.vocab_size == 1536
    assert (TOKENIZER.pad_id, TOKENIZER.bos_id, TOKENIZER.eos_id) == (0, 1, 2)
    vocab = json.loads(PATH.read_text(encoding="utf-8"))["model"]["vocab"]
    assert [vocab[token] for token in ("<pad>", "<s>", "</s>")] == [0, 1, 2]


def test_the_file_loads_in_plain_tokenizers() -> None:
    plain = tokenizers.Tokenizer.from_file(str(PATH))
    assert plain.encode("Set(sound.volume, 45)").ids == TOKENIZER.encode("set(sound.volume, 45)")


def test_each_digit_is_a_token() -> None:
    five, six = TOKENIZER.encode("5"), TOKENIZER.encode("6")
    assert TOKENIZER.encode("565") == five + six + five


def test_special_tokens_in_a_query_are_text() -> None:
    tokens = TOKENIZER.encode("<s>hi</s><pad>")
    assert not {0, 1, 2} & set(tokens)
    assert TOKENIZER.decode(tokens) == "<s>hi</s><pad>"


def test_special_tokens_are_skipped_in_decoding() -> None:
    tokens = TOKENIZER.encode("set(wifi, on)")
    assert TOKENIZER.decode([1, *tokens, 2, 0, 0]) == "set(wifi, on)"


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("a\ud800b")) == "a?b"


def test_max_len_keeps_the_start() -> None:
    tokens = TOKENIZER.encode("turn on the bluetooth please")
    assert TOKENIZER.encode("turn on the bluetooth please", 2) == tokens[:2]
    assert len(TOKENIZER.encode("a b " * 5000, 64)) == 64


@given(TEXTS, st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_split_tokens_decode_to_the_same_text(text: str, rate: float, seed: int) -> None:
    tokens = TOKENIZER.encode(text)
    first, second = (
        TOKENIZER.split_tokens(tokens, rate, np.random.default_rng(seed)) for _ in "ab"
    )
    assert first == second
    assert len(first) >= len(tokens)
    assert TOKENIZER.decode(first) == TOKENIZER.decode(tokens)


def test_splitting_all_merges_leaves_bytes_and_splitting_none_leaves_all() -> None:
    tokens = [1, *TOKENIZER.encode("bluetooth"), 2]
    rng = np.random.default_rng(0)
    assert TOKENIZER.split_tokens(tokens, 0.0, rng) == tokens
    letters = [token for letter in "bluetooth" for token in TOKENIZER.encode(letter)]
    assert TOKENIZER.split_tokens(tokens, 1.0, rng) == [1, *letters, 2]


def test_training_merges_what_is_frequent_and_repeats() -> None:
    texts = ["low lower lowest"] * 20
    first, second = train_tokenizer(texts, 263), train_tokenizer(texts, 263)
    assert first.vocab_size == 263
    assert len(first.encode("low")) == 1
    assert first.encode("LOWER slow") == second.encode("lower slow")


def test_saving_and_loading_keeps_every_token(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(path)
    assert path.read_bytes() == PATH.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer.json"]


def test_a_file_that_pads_or_truncates_is_read_without_that(tmp_path: Path) -> None:
    plain = tokenizers.Tokenizer.from_file(str(PATH))
    plain.enable_padding(length=64)
    plain.enable_truncation(2)
    plain.save(str(tmp_path / "padded.json"))
    other = Tokenizer.load(tmp_path / "padded.json")
    texts = ["turn on wifi please", "a"]
    assert [other.encode(text) for text in texts] == [TOKENIZER.encode(text) for text in texts]


def test_merges_may_be_written_as_texts_as_older_files_have_them(tmp_path: Path) -> None:
    document = json.loads(PATH.read_text(encoding="utf-8"))
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    (tmp_path / "old.json").write_text(json.dumps(document), encoding="utf-8")
    old, rng = Tokenizer.load(tmp_path / "old.json"), np.random.default_rng(0)
    tokens = TOKENIZER.encode("bluetooth")
    letters = [token for letter in "bluetooth" for token in TOKENIZER.encode(letter)]
    assert old.encode("bluetooth") == tokens
    assert old.split_tokens(tokens, 1.0, rng) == letters


def test_a_trained_tokenizer_has_bytes_in_order_and_splits_digits_and_words() -> None:
    trained = train_tokenizer(["Go 2020 go 2020", "go on"] * 20, 280)
    vocab = json.loads(trained._backend.to_str())["model"]["vocab"]
    names = sorted(vocab, key=vocab.get)
    assert names[:3] == ["<pad>", "<s>", "</s>"]
    assert names[3:259] == sorted(names[3:259])
    assert [trained.decode([t]) for t in trained.encode("2020")] == ["2", "0", "2", "0"]
    assert [trained.decode([t]) for t in trained.encode("GO go")] == ["go", " go"]
    assert trained.encode("\uff27\uff2f") == trained.encode("go")  # full-width letters
    assert train_tokenizer(["x"], 259).vocab_size == 259


def test_a_vocabulary_without_room_for_bytes_is_refused() -> None:
    with pytest.raises(InputError, match=r"vocab_size must be .* from 259 to .* got 258"):
        train_tokenizer(["x"], 258)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"model": {"type": "BPE"}}'])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        Tokenizer.load(path)


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(path))
    with pytest.raises(InputError, match="use the file shipped"):
        Tokenizer.load(path)


def test_a_tokenizer_with_a_gap_without_bytes_or_with_other_texts_is_refused(tmp_path) -> None:
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(path)
    whole = json.loads(path.read_text())

    def refused(change, rule: str) -> None:
        data = copy.deepcopy(whole)
        change(data)
        path.write_text(json.dumps(data))
        with pytest.raises(InputError, match=rule):
            Tokenizer.load(path)

    last = max(whole["model"]["vocab"], key=whole["model"]["vocab"].get)
    refused(
        lambda d: d["model"]["vocab"].update({last: 10**6}), "number its tokens from 0, each once"
    )
    byte = "\u0120"  # stands for a blank

    def without_a_byte(data) -> None:
        data["model"]["vocab"]["zz"] = data["model"]["vocab"].pop(byte)
        data["model"]["merges"] = []

    refused(without_a_byte, "each of the 256 bytes; 1 lack")
    refused(lambda d: d.update(decoder=None), "must give back the text")
    refused(lambda d: d.update(normalizer={"type": "Replace", "pattern": {"String": "4"},
                                           "content": "5"}), "must give back the text")  # fmt: skip
    refused(lambda d: d.update(model=3), "must be a tokenizer.json")


@pytest.mark.parametrize("token", [-1, 10**9, 2**40, "a", True, 1.0])
def test_what_is_no_token_is_not_decoded(token: object) -> None:
    with pytest.raises(InputError, match=r"token must be a whole number from 0 to 1,535, got"):
        TOKENIZER.decode([5, token])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.json"):
        Tokenizer.load(tmp_path / "absent.json")


def test_a_file_that_frames_its_texts_frames_none_here() -> None:
    backend = tokenizers.Tokenizer.from_file(str(PATH))
    plain = Tokenizer(backend).encode("wifi")
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert Tokenizer(backend).encode("wifi") == plain
