"""Languages by the codes of Whisper's tokens, and how people and programs write them."""

from __future__ import annotations

import re

from hybridlab.errors import ParameterError

_NAMES = (
    "en:english zh:chinese de:german es:spanish ru:russian ko:korean fr:french ja:japanese "
    "pt:portuguese tr:turkish pl:polish ca:catalan nl:dutch ar:arabic sv:swedish it:italian "
    "id:indonesian hi:hindi fi:finnish vi:vietnamese he:hebrew uk:ukrainian el:greek ms:malay "
    "cs:czech ro:romanian da:danish hu:hungarian ta:tamil no:norwegian th:thai ur:urdu hr:croatian "
    "bg:bulgarian lt:lithuanian la:latin mi:maori ml:malayalam cy:welsh sk:slovak te:telugu "
    "fa:persian lv:latvian bn:bengali sr:serbian az:azerbaijani sl:slovenian kn:kannada "
    "et:estonian mk:macedonian br:breton eu:basque is:icelandic hy:armenian ne:nepali mn:mongolian "
    "bs:bosnian kk:kazakh sq:albanian sw:swahili gl:galician mr:marathi pa:punjabi si:sinhala "
    "km:khmer sn:shona yo:yoruba so:somali af:afrikaans oc:occitan ka:georgian be:belarusian "
    "tg:tajik sd:sindhi gu:gujarati am:amharic yi:yiddish lo:lao uz:uzbek fo:faroese "
    "ht:haitian_creole ps:pashto tk:turkmen nn:nynorsk mt:maltese sa:sanskrit lb:luxembourgish "
    "my:myanmar bo:tibetan tl:tagalog mg:malagasy as:assamese tt:tatar haw:hawaiian ln:lingala "
    "ha:hausa ba:bashkir jw:javanese su:sundanese yue:cantonese"
)
#: English names by code, in the order of Whisper's tokens: English-only models have the first,
#: those of 51,865 words the first 99, those of 51,866 all.
LANGUAGE_NAMES = {
    code: name.replace("_", " ") for code, name in (pair.split(":") for pair in _NAMES.split())
}
#: Codes of ISO 639-1, which multilingual Whispers and Voxtral take.
LANGUAGES = [code for code in LANGUAGE_NAMES if code not in ("haw", "jw", "yue")]

#: Other English names, as Whisper's own tokenizer knows them.
OTHER_NAMES = {
    "burmese": "my",
    "castilian": "es",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "mandarin": "zh",
    "moldavian": "ro",
    "moldovan": "ro",
    "panjabi": "pa",
    "pushto": "ps",
    "sinhalese": "si",
    "valencian": "ca",
}
_CODES_BY_NAME = {name: code for code, name in LANGUAGE_NAMES.items()} | OTHER_NAMES
#: Codes that mean the language of another one: withdrawn by ISO 639-1, spelled otherwise by
#: Whisper, or of a language's usual form.
OTHER_CODES = {
    "cmn": "zh",
    "fil": "tl",
    "in": "id",
    "iw": "he",
    "ji": "yi",
    "jv": "jw",
    "mo": "ro",
    "nb": "no",
}
#: What asks for detection, beside an empty text.
DETECTED = "auto"
_WITH_REGION = re.compile(r"([a-z]{2,3})(?:[-_][a-z0-9]{2,8})+")


def whisper_language(text: str | None) -> str:
    """Whisper's code of a language that is written as a code or an English name, in any case and
    with or without a region ('de', 'German', 'en-US'); '' for what asks for detection (None, '',
    'auto'). `ParameterError` for anything else."""
    asked = " ".join((text or "").lower().split())
    if asked in ("", DETECTED):
        return ""
    region = _WITH_REGION.fullmatch(asked)
    code = region[1] if region else asked
    code = OTHER_CODES.get(code, code)
    if code in LANGUAGE_NAMES:
        return code
    if asked in _CODES_BY_NAME:
        return _CODES_BY_NAME[asked]
    shown = asked if len(asked) <= 20 else f"{asked[:20]}…"
    raise ParameterError(
        f"language {shown!r} is not known; write a code like 'en', 'de' or 'zh-CN', an English "
        "name like 'German', or '' to have it detected"
    )
