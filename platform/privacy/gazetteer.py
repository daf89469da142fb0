"""Word lists of the name finder, loaded once per process (about 100,000 entries, 10 MB)."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from privacy.wordlists import words

DATA_DIR = Path(__file__).resolve().parent / "data"

# Words that head, close or label things in a chat log, and are nobody's name there.
_EXTRA_COMMON = frozenset(
    words("""
    january february march april may june july august september october november december jan feb
    mar apr jun jul aug sep sept oct nov dec monday tuesday wednesday thursday friday saturday
    sunday mon tue tues wed thu thurs fri sat sun hi hello hey dear thanks thank regards cheers
    sincerely yours team customer sir madam mr mrs ms miss dr prof please sorry bot user agent
    assistant system support python java ruby perl django angular oracle excel linux windows
    android apple google amazon microsoft facebook twitter internet english bill meter tariff
    boiler gas energy electricity heating invoice refund supplier complaint solar heat thermostat
    radiator outage account payment contract deposit credit debit visa mastercard island junior senior
    dealer sale lien bond surety justice council landlord tenant household island county state city
    empire certificate registration pension insurance allowance veteran veterans medicare plan
    iban bic sepa esim premium saver plus flex fixed standard basic direct switch transfer engineer technician office
    manager director inspector officer helpline hotline reference number order delivery parcel
    kettle oven fridge freezer washer dryer dishwasher cooker shower tap pipe valve pump cylinder
    tank panel battery inverter charger socket fuse breaker pilot flame pressure leak mould
    damp insulation glazing loft cellar kitchen bathroom bedroom garage garden smart
    note question answer passage source christmas easter god lord king queen
    rose amber brown faith hope joy grace summer autumn spring winter heather ivy holly daisy lily
    olive pearl jade crystal bath cork nice reading mobile sandwich green white black gray grey blue
    red gold silver stone wood hill park field church hall house bank price cash penny rich sunny
    melody harmony art gene frank pat sue dean duke baron major chance case page sky storm rain
    star moon angel honey candy cherry ginger basil sage rosemary coral dawn eve iris violet
    north south east west northern southern eastern western street road avenue lane drive court
    """)
)
_DEMONYMS = frozenset(
    words("""
    american british english scottish welsh irish french german spanish italian portuguese dutch
    belgian swiss austrian swedish norwegian danish finnish icelandic polish czech slovak hungarian
    romanian bulgarian greek turkish russian ukrainian serbian croatian slovenian bosnian albanian
    estonian latvian lithuanian canadian mexican brazilian argentinian chilean colombian peruvian
    cuban venezuelan chinese japanese korean indian pakistani bangladeshi nepali thai vietnamese
    indonesian malaysian filipino australian egyptian moroccan tunisian algerian nigerian ghanaian
    kenyan ethiopian israeli lebanese syrian iraqi iranian saudi arab arabic hebrew latin european
    asian african jewish muslim christian catholic hindu buddhist afghan georgian armenian cypriot
    """)
)
# Grammar and forms of address: no name even after "hi" or "dear" (will and may are left out).
FUNCTION_WORDS = frozenset(
    words("""
    a about above after again against ago all almost alone also although always am an and another
    any anybody anyone anything are around as at away back be became because been before being
    below best better between both but by came can cannot come could day days did do does doing
    done down during each either else enough even ever every everybody everyone everything fine
    first folks for from front full further gave get getting give go going gone good got guys had
    happy has have having he her here him his how however i if in indeed into is it its itself
    just keep last later least less like made make many me mean might mine more most much must my
    myself need needs never new next no nobody none nor not nothing now of off often ok okay on
    once one only onto or other others our out over own per perhaps put quite rather re really
    said same say see seem she should show side since so some somebody someone something soon
    still stuck such sure take than that the their them then there these they thing this those
    though through thus to today together tomorrow tonight too toward trying two under unless
    until up upon us using very via want was we well went were what when where whether which while
    who whole whom whose why with within without wondering would yes yesterday yet you yours
    team sir madam customer customers support all there everyone service services dear hello hi
    agent bot assistant user client manager staff folks ladies gentlemen reader friend friends
    """)
)
# Cities that Faker's lists leave out although everybody writes them.
_CITIES = frozenset(
    words("""
    london manchester birmingham leeds glasgow edinburgh cardiff belfast bristol liverpool sheffield
    newcastle nottingham leicester southampton portsmouth plymouth oxford cambridge norwich york dublin
    paris lyon marseille nice toulouse bordeaux berlin munich hamburg frankfurt cologne stuttgart madrid
    barcelona valencia seville rome milan naples turin florence venice lisbon porto amsterdam rotterdam
    brussels antwerp vienna zurich geneva copenhagen stockholm oslo helsinki reykjavik warsaw prague
    budapest bucharest sofia athens istanbul moscow kyiv cairo lagos nairobi johannesburg casablanca
    dubai tehran baghdad jerusalem mumbai delhi bangalore chennai kolkata karachi lahore dhaka beijing
    shanghai shenzhen tokyo osaka seoul bangkok jakarta manila singapore sydney melbourne brisbane perth
    auckland wellington toronto montreal vancouver chicago boston seattle houston dallas philadelphia
    phoenix denver detroit atlanta miami baltimore scotland wales england ireland britain uk usa
    """)
)
_LONG_PLACES = frozenset(
    [
        "united states",
        "new york",
        "los angeles",
        "san francisco",
        "san diego",
        "las vegas",
        "new orleans",
        "washington dc",
        "hong kong",
        "new delhi",
        "cape town",
        "kuala lumpur",
        "ho chi minh city",
        "mexico city",
        "buenos aires",
        "rio de janeiro",
        "sao paulo",
        "saint petersburg",
        "tel aviv",
    ]
)
_NOT_PLACES = frozenset({"street", "road", "of", "the", "and", "new", "old", "center", "centre"})

_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


@dataclass(frozen=True)
class Gazetteer:
    """Folded entries: first names, last names, places (up to four words), common words."""

    first: frozenset[str]
    last: frozenset[str]
    places: frozenset[str]
    common: frozenset[str]
    place_starts: frozenset[str]

    def is_common(self, folded: str) -> bool:
        """Whether a folded word is everyday language (it may still be a name as well)."""
        return folded in self.common


def fold(word: str) -> str:
    """Case-folded word without accents and with one kind of apostrophe."""
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFKD", word.casefold().replace("’", "'"))
    # Whole texts are folded too, and most of their letters combine with nothing.
    return _NOT_ASCII.sub(_without_marks, decomposed)


def _without_marks(match: re.Match[str]) -> str:
    return "".join(char for char in match.group() if not unicodedata.combining(char))


@lru_cache(maxsize=1)
def gazetteer() -> Gazetteer:
    """The lists of `data/`.

    Raises FileNotFoundError where a list is missing: names must never be searched for with half
    the lists and without anybody noticing.
    """
    common = _read("common_words.txt") | _EXTRA_COMMON | _DEMONYMS
    places = (_read("places.txt") | _CITIES | _LONG_PLACES) - _NOT_PLACES
    return Gazetteer(
        first=_read("first_names.txt"),
        last=_read("last_names.txt"),
        places=places,
        common=common,
        place_starts=frozenset(place.split(" ", 1)[0] for place in places),
    )


def _read(file_name: str) -> frozenset[str]:
    return frozenset((DATA_DIR / file_name).read_text(encoding="utf-8").split("\n")) - {""}
