"""BERT's uncased tokenisation, written from its definition: the tests' reference, independent of the server's tokenizer."""
import unicodedata

MAX_WORD = 100


def is_punctuation(char):
    return unicodedata.category(char).startswith("P") or (char.isascii() and char.isprintable() and not char.isalnum() and char != " ")


def is_cjk(char):
    return any(low <= ord(char) <= high for low, high in ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2FA1F), (0xF900, 0xFAFF)))


def words(text):
    """Lower case, accents and control characters dropped; punctuation and CJK characters are words of their own."""
    spaced = []
    for char in unicodedata.normalize("NFD", text.lower()):
        category = unicodedata.category(char)
        if char in "\t\n\r" or category == "Zs":
            spaced.append(" ")
        elif category == "Mn" or category.startswith("C") or char == "\ufffd":
            continue
        elif is_punctuation(char) or is_cjk(char):
            spaced.append(f" {char} ")
        else:
            spaced.append(char)
    return "".join(spaced).split()


def pieces(word, vocabulary):
    """Greedy longest match first; the whole word is unknown when any part of it is."""
    if len(word) > MAX_WORD:
        return ["[UNK]"]
    found, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        ends = (end for end in range(len(word), start, -1) if prefix + word[start:end] in vocabulary)
        end = next(ends, None)
        if end is None:
            return ["[UNK]"]
        found.append(prefix + word[start:end])
        start = end
    return found


def encode(text, vocabulary, max_length):
    """Token ids with [CLS] and [SEP], cut to `max_length`."""
    tokens = [piece for word in words(text) for piece in pieces(word, vocabulary)]
    return [vocabulary[token] for token in ["[CLS]", *tokens[: max_length - 2], "[SEP]"]]
