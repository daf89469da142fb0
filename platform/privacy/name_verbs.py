"""Names that are everyday words ("mark", "rose", "case"), told by what people do with each other.

"Ask case about the invoice", "talked to mark", "will told me to wait": lists and model leave such words alone, since
in most sentences they are what they say. Only words that people are in fact called count here, and only where a verb of
speaking stands before them as a verb and what follows goes on as it does after a person; so that "ask case studies",
"the call may fail" and "mark it as read" stay.
"""

from __future__ import annotations

from collections.abc import Iterator

import regex

from privacy.gazetteer import FUNCTION_WORDS, fold, gazetteer
from privacy.scanning import Hit
from privacy.wordlists import words

# Left out on purpose, although somebody is called so: words that are mostly asked, called or mailed as things in a
# support chat or a manual (page, price, general, line, link, list, server, major, press, sales).
CALLED = frozenset(
    words("""
    ace amber angel april archer art ash aspen aubrey august autumn axel bailey baker barry basil bay bear bill
    blair blake blaze blossom bob brandy brook brooke brooks bruno buck bud buddy buster candy carol carter case
    cash chance charity chase cherry chip christian christmas chuck clay cliff coco cole colt connie cooper
    coral cruz crystal daisy dale dallas dash dawn dean dee destiny dolly don dot drake drew duke earl easter
    eden ember ernest eve faith fern finch fisher flora florence forest forrest fox frank freddy gale gay gene
    genesis ginger glen glory goldie grace grant guy hank happy harmony harper hart haven hazel heath heather
    henna herb holly honey hope hunter iris ivory ivy jack jade jasmine jay jean jenny jesse jewel jimmy jo job
    jolly joy jules june juniper justice kay kelly kit lacey lake lance lane lark laurel lily linden lotus love
    lucky mae maple marina mark marsh mason max may melody mercy mick miles milo minny misty moe molly myrtle
    nan nat ned nick noble norm olive opal paige pansy parker pat patience patsy peace pearl peg penny pepper
    petal peter phoenix pierce piper polly poppy porter precious preston prudence queenie rain raven ray reed
    reese rex rich ridge river rob robin rocky rod roman rose rosemary rowan roy royal ruby rusty ryder sage
    sally sandy savannah scarlett scout shelly sherry sierra silver skip sky skye slade sonny sparrow spencer
    star sterling stew stone storm stormy sue summer sunny tanner tawny taylor teddy terry tom tony trace tracy
    trinity tripp trudy tucker ty tyler van verity victor violet vivid wade walker ward warren wayne wes will
    willow winter wolf wren zen
    """)
)
# Auxiliaries and months stand behind anything: less may follow them.
_AUXILIARIES = frozenset(words("will may april june august"))
# Behind words that are nouns as well ("email case", "call chance"), and things of an office: masked, and reviewed.
_DOUBTFUL = frozenset(
    words(
        "art case cash chance easter happy job lane love may mark max peace trace van ward will christmas silver star"
    )
)
_ORDINARY = words(
    "ask asked asking tell told telling remind reminded phoned emailed texted messaged pinged contacted met invited"
    " thanked informed notified ping cc"
)
# Nouns as well; the word before tells.
_NOUNS = words("call email text message phone contact called")
_WITH = (
    r"(?:talk(?:s|ed|ing)?|sp(?:eak|oke|oken|eaking)|chat(?:ted|ting)?) (?:to|with)"
    r"|(?:met|meet|meeting|check(?:ed)?) with"
    r"|(?:told|asked|helped|contacted|called|emailed|phoned|promised|advised|assured|served) by"
    r"|(?:hear|heard) (?:back )?from|reach(?:ed)? out to|get hold of|got hold of|repl(?:y|ied) to|wr(?:ote|ite) to"
    r"|(?:forward|send|sent|give|gave|hand|handed|pass|passed) (?:it|this|that|them) (?:on |over )?to"
)
_VERB = regex.compile(
    rf"(?<![\w'’\-/.])(?:(?P<noun>{'|'.join(_NOUNS)})|(?P<verb>{'|'.join(_ORDINARY)})|(?P<with>{_WITH}))[ \t]+\Z",
    regex.IGNORECASE,
)
_LAST_OF_VERB = frozenset([*_NOUNS, *_ORDINARY, "to", "with", "from", "of", "by"])
# "Let mark know", "get rose to ring me", "have case call me".
_LETTING = frozenset({"let", "get", "got", "have", "had"})
_ACT = regex.compile(
    r"[ \t]+(?:know(?:[ \t]+(?:that|about|when|if|it|i|we)\b|[ \t]*(?:[.!?;,)\n]|\Z))"
    r"|(?:to[ \t]+)?(?:call|ring|phone|email|text|message|contact|tell|ask|reply|answer|write)"
    r"[ \t]+(?:me|us|him|her|them|back|to)\b)",
    regex.IGNORECASE,
)
_WIDEST_VERB = 40
_AND = regex.compile(r" (?:and|or|&) (?P<name>\p{L}+)(?![\w'’\-/(\[=@])")
_NO_NAME_BEFORE = frozenset("'’-/.@$`\\_")
_NO_NAME_BEHIND = regex.compile(r"\.\w|[\w\-/(\[=@]|['’](?!s\b)\w", regex.IGNORECASE)
_APART = str.maketrans(dict.fromkeys("\t\n\r.,;:!?'\"’“”‘()[]<>/*&-", " "))
_BEFORE = regex.compile(r"(?:(?P<word>[\p{L}'’]+)[ \t]+|(?P<mark>[^\w\s'’`<(/\\$.\-][ \t]*|\.[ \t]+|\n[ \t]*))\Z")
# Behind these the word is a verb. Nothing else may stand before one that is a noun as well.
_ACTS = frozenset(
    words("""
    to please can could should would must will i we you they he she and then just let's lets didn't don't tried
    i'll we'll you'll they'll i'd we'd did do not also never already kindly or i've you've we've either
    """)
)
_THINGS = frozenset(words("the a an this that each every any no my your his her its our their"))
_FOLLOWED = frozenset(
    words("""
    about to that if when whether why how for and or again back today yesterday tomorrow tonight this last next at from
    because but please so regarding before after first who directly instead personally later now asap on in over
    """)
)
_FOLLOWED_AUXILIARY = frozenset(words("about to whether why how that back yesterday"))
_END = regex.compile(r"[ \t]*(?:[.!?;)\n]|\Z)")
_COMMA = regex.compile(r"[ \t]*[,:]")
_NEXT = regex.compile(r"[ \t]+(?P<word>[\p{L}'’]+)")
_POSSESSIVE = regex.compile(r"['’]s\b", regex.IGNORECASE)

_SAID = (
    r"said|told (?:me|us|him|her|them)|asked (?:me|us|him|her|them|for|if)|promised|replied|emailed|phoned|texted"
    r"|called (?:me|us|back|yesterday|again)|rang (?:me|us)|wrote (?:to|back)|says|tells|explained|mentioned|assured"
    r"|sent (?:me|us)|gave (?:me|us)|helped (?:me|us)|apologi[sz]ed"
    r"|has (?:my|our|told|said|asked|called|emailed|phoned|promised|replied)"
    r"|(?:never|always) (?:replied|answered|called|rang)"
    r"|was (?:very |so |really |extremely )?(?:helpful|rude|kind|polite|friendly)"
    r"|(?:from|in|at) (?:(?:your|the|our) )?(?:support|sales|billing|accounts|accounting|finance|hr|reception|customer"
    r" (?:service|services|support|care)|tech support|collections|claims|complaints)(?! of\b| for\b)"
)
_SUBJECT = regex.compile(rf"[ \t]+(?:{_SAID})(?![\w\-])", regex.IGNORECASE)
_FIRST_OF_SAID = frozenset(
    words("""
    said told asked promised replied emailed phoned texted called rang wrote says tells explained mentioned assured sent
    gave helped apologised apologized was from in at has never always
    """)
)
_CLAUSES = frozenset(
    words("that because but and when if as since so then yesterday today once until after before while thinks though")
)
_SCORE = 0.6
# In the band in which a mask is reviewed, for policies that leave the threshold where it is.
_DOUBTFUL_SCORE = 0.45


def people_by_verbs(text: str) -> Iterator[Hit]:
    """Everyday words that a verb makes a person's name, as hits with offsets of the text."""
    lower = text.lower()
    if len(lower) != len(text):  # a letter whose small form is two
        lower = "".join(char.lower() if len(char.lower()) == 1 else char for char in text)
    # Most texts have none of the words, or "will" and "may": everything below looks around these places only.
    for word in CALLED.intersection(lower.translate(_APART).split()):
        for start in _places(lower, word):
            yield from _spoken_to(text, lower, start, start + len(word))
            yield from _speaking(text, lower, start, start + len(word))


def _places(lower: str, word: str) -> Iterator[int]:
    """Where the word stands by itself, and not in code."""
    start = lower.find(word)
    while start >= 0:
        before = lower[start - 1 : start]
        inside = before.isalnum() or before in _NO_NAME_BEFORE if before else False
        if not inside and _NO_NAME_BEHIND.match(lower, start + len(word)) is None:
            yield start
        start = lower.find(word, start + len(word))


def _spoken_to(text: str, lower: str, start: int, end: int) -> Iterator[Hit]:
    before = lower[max(0, start - _WIDEST_VERB) : start]
    last = before.rsplit(None, 1)
    word = last[-1].strip('("“,;:') if last else ""
    if word in _LETTING and _ACT.match(text, end):
        yield Hit(start, end, _SCORE, "cue", word)
    if word not in _LAST_OF_VERB:
        return
    verb = _VERB.search(text, max(0, start - _WIDEST_VERB), start)
    if verb is None or not _is_verb(text, verb):
        return
    place: tuple[int, int] | None = (start, end)
    while place is not None:
        start, end = place
        called = lower[start:end]
        stop = next((stop for stop in (end, _surname_end(text, end)) if _goes_on(text, stop, called)), None)
        if stop is not None:
            doubtful = called in _DOUBTFUL and verb.group("noun") is not None
            yield Hit(
                start, stop, _DOUBTFUL_SCORE if doubtful else _SCORE, "cue", " ".join(verb.group().lower().split())
            )
        other = _AND.match(lower, end if stop is None else stop)
        place = other.span("name") if other and other.group("name") in CALLED else None


def _speaking(text: str, lower: str, start: int, end: int) -> Iterator[Hit]:
    following = lower[end : end + 16].split(None, 1)
    if not following or following[0].strip(".,!?") not in _FIRST_OF_SAID:
        return
    said = _SUBJECT.match(text, end)
    if said is None:
        return
    before = _BEFORE.search(text, max(0, start - 30), start)
    begins = not text[max(0, start - _WIDEST_VERB) : start].strip() or (
        before is not None and before.group("mark") is not None
    )
    if begins or (before is not None and before.group("word").lower() in _CLAUSES):
        label = " ".join(said.group().lower().split())
        doubtful = lower[start:end] in _DOUBTFUL and label.split()[0] in {"in", "from", "at", "was"}
        yield Hit(start, end, _DOUBTFUL_SCORE if doubtful else _SCORE, "cue", label)


def _is_verb(text: str, match: regex.Match[str]) -> bool:
    """Whether what stands before lets the verb be one: not "the call will", "a message may", "an email case"."""
    start = match.start()
    if not text[max(0, start - _WIDEST_VERB) : start].strip():
        return True
    before = _BEFORE.search(text, max(0, start - 30), start)
    if before is None or before.group("word") is None:
        return before is not None
    word = before.group("word").lower().replace("’", "'")
    if match.group("noun") is not None:
        return word in _ACTS or word in _CLAUSES
    return word not in _THINGS


def _surname_end(text: str, end: int) -> int:
    """Where the last name behind a first name ends; `end` where there is none."""
    following = _NEXT.match(text, end)
    if following is None:
        return end
    word = fold(following.group("word"))
    return following.end() if word in gazetteer().last and word not in FUNCTION_WORDS else end


def _goes_on(text: str, end: int, name: str) -> bool:
    """Whether what follows the word goes on as it does behind a person."""
    if _END.match(text, end):
        return True
    auxiliary = name in _AUXILIARIES
    if _POSSESSIVE.match(text, end):
        return not auxiliary
    if _COMMA.match(text, end):
        return not auxiliary
    following = _NEXT.match(text, end)
    if following is None:
        return False
    return following.group("word").lower() in (_FOLLOWED_AUXILIARY if auxiliary else _FOLLOWED)
