"""Refusals: replies in which a model declines in plain words, in the languages that it writes.

A refusal says that the model cannot or will not do what it was asked to: help, comply, provide
something, play a role. A character who cannot wait, cannot write or will not leave the harbour
declines nothing. Of each language there is what says so at the beginning of a reply.
"""

from __future__ import annotations

import re
import unicodedata

from generators.llm.chat.reply_json import Rejection
from generators.rules.words import normalize

_THINGS = (
    r"(?:request|question|prompt|content|material|information|advice|instruction|response|topic"
    r"|story|stories|text)s?\b"
)
_ASKED = (
    r"(?:(?:assist|comply|role-?play|pretend|fulfil?l)\b|(?:engage|participate) in\b"
    r"|(?:adopt|take on) (?:\w+ ){1,2}(?:role|persona|character|identity)\b"
    r"|(?:act|speak|respond|reply) as\b|process (?:this|that|your)\b"
    # "I can't help but smile" and "I can't help it" decline nothing
    r"|help (?:(?:you )?with|you|out)\b|(?:help|respond|continue|answer)(?=\W*$|[.!?])"
    r"|provide (?:you with|that|this|it|such|any|assistance|guidance|support|details|an?"
    rf"|{_THINGS})(?=\W)"
    r"|(?:answer|discuss|create|generate|write|complete|produce|offer|give you|share|do|continue"
    r"|support|give|respond to|reply to|talk about)"
    r" (?:(?:that|this|it|so)(?=\W*(?:$|[.!?,;\n]|(?:because|for you)\b))"
    rf"|(?:(?:such|any|this|that|these|your|the) )?(?:\w+ )?{_THINGS}))"
)
_UNABLE = (
    r"(?:i (?:can ?not|can't|could ?n[o']t|won't|will not)"
    r"|i(?:'m| am) (?:unable|not able|not allowed|not going|not permitted)"
    r"|we (?:can ?not|can't|are unable))(?: to)?(?: be able to)?(?: \w+ly)?"
)
_SORRY = (
    r"(?:(?:i(?:'m| am)|we're|we are)(?: \w+)? (?:sorry|afraid)|sorry|i apologi[sz]e|unfortunately"
    r"|(?:my )?apologies|i regret)\b"
)
_MODEL = (
    r"an? (?:ai|artificial intelligence|(?:large )?language model)"
    r"(?: (?:language )?(?:model|assistant|system|chatbot))?"
)
_GREETING = r"(?:hello|hi|no|oh|well|thank you|thanks)\b[^.!?\n]{0,40}[,.!;-]\W*(?:but\W+)?"
_ENGLISH = (
    rf"(?:{_GREETING})?(?:{_SORRY}[^.!?\n]{{0,60}}?[.,;:!?-]?\W*(?:but\W+)?(?:that )?)?"
    rf"(?:{_UNABLE} {_ASKED}"
    r"|i (?:must|have to|will have to) (?:\w+ )?decline(?=\W*$|[.!?]| (?:this|that|to|your)\b)"
    r"|i(?: do not| don't|'m not| am not)(?: feel)? comfortable (?:\w+ing|with) (?:this|that)\b)"
    rf"|{_SORRY}[,.]?(?: but)?\W*$"
    r"|[^.!?\n]{0,60}(?:\bis not|'s not|\bisn't) something (?:that )?i can\b"
    # "as an AI researcher" and "as an AI who has run away" are characters
    rf"|as {_MODEL}(?:,|\W+(?:i|my|trained|developed|created|designed)\b)"
    rf"|i(?:'m| am) (?:just |only )?{_MODEL},? (?:and|so)\b[^.!?\n]{{0,40}}"
    r"(?:cannot|can't|do not|don't)"
)
# of each language: an apology or "as an AI", what cannot be, and what is asked of a model; accents
# are left out here as in the texts that are compared
_LANGUAGES = {
    "ar": (
        "عذرا|(?:انا )?اسف|نعتذر|اعتذر|للاسف",
        "لا استطيع|لا يمكنني|لا يمكننا|لن اتمكن",
        "مساعد|تقديم|الاجابة|تلبية|تنفيذ",
    ),
    "de": (
        "(?:es )?tut mir (?:sehr )?leid|entschuldig|leider|als (?:ki|sprachmodell)\\b",
        "nicht|keine?n?\\b",
        "helfen|unterstutzen|beantworten|erfullen|bereitstellen|geben|nachkommen|behilflich",
    ),
    "es": (
        "lo siento|lamento|disculp|perdon|como (?:modelo de lenguaje|una? ia)",
        "no (?:puedo|podemos|me es posible)",
        "ayudar|asistir|proporcionar|cumplir|responder|hacer e[so]to|generar|participar",
    ),
    "fa": ("متاسف|ببخشید", "نمی ?توانم|قادر نیستم", "کمک|پاسخ|ارائه|انجام"),
    "fr": (
        "(?:je suis |je suis vraiment )?desole|je m'excuse|malheureusement|en tant (?:que|qu'ia)",
        "je ne (?:peux|puis|suis pas (?:en mesure|autorise))",
        "aider|assister|fournir|repondre|faire cela|generer|participer|satisfaire",
    ),
    "he": ("מצטער|סליחה|לצערי", "לא (?:יכול|אוכל|ניתן)", "לעזור|לסייע|לספק|לענות|לבצע"),
    "hi": ("माफ|कषमा|क्षमा|खेद|मुझे खेद", "नहीं|असमर्थ", "मदद|सहायता|जवाब|प्रदान"),
    "id": ("(?:mohon )?maaf", "tidak (?:bisa|dapat)", "bantu|memberikan|menjawab|memenuhi"),
    "it": (
        "mi dispiace|scusa|spiacente|purtroppo|come (?:modello linguistico|ia)",
        "non (?:posso|possiamo|sono in grado)",
        "aiuta|assister|fornire|soddisfare|risponder|farlo|generare|partecipare",
    ),
    "ja": (
        "(?:大変)?(?:申し訳|ごめん|すみません|恐れ入り|残念)",
        "ません|かねます|できない",
        "お応え|お答え|応じ|お手伝い|お力|対応|提供|協力|要望|支援|回答",
    ),
    "ko": ("죄송|미안", "수 없|어렵|못", "도와|도움|제공|답변|응답|수행|이행"),
    "nl": ("het spijt me|helaas", "niet|geen\\b", "helpen|beantwoorden|voldoen|meewerken|geven"),
    "pl": ("przepraszam|przykro mi|niestety", "nie moge", "pomoc|spełnic|odpowiedziec|udzielic"),
    "pt": (
        "desculp|lamento|sinto muito|infelizmente|como (?:modelo de linguagem|uma? ia)",
        "nao (?:posso|consigo|podemos|me e possivel)",
        "ajuda|atender|fornecer|cumprir|responder|fazer isso|gerar|participar",
    ),
    "ru": (
        "извините|простите|к сожалению|прошу прощения|как (?:ии|языковая модель)",
        "не (?:могу|можем|в состоянии)",
        "помоч|помога|выполн|предоста|ответ|обсужд",
    ),
    "th": ("ขออภัย|ขอโทษ|เสียใจ", "ไม่(?:สามารถ|อาจ)|ไม่ได้", "ช่วย|ให้ข้อมูล|ตอบ|ดําเนินการ"),
    "tr": (
        "uzgunum|ozur dilerim|maalesef",
        "amam|emem|amıyor|emiyor|amayız",
        "yardım|yanıt|yerine",
    ),
    "uk": ("вибачте|на жаль|перепрошую", "не (?:можу|можемо)", "допомог|виконат|надат|відпов"),
    "vi": ("(?:toi )?(?:xin loi|rat tiec)", "khong the", "giup|ho tro|cung cap|tra loi|thuc hien"),
    "zh": (
        "很?抱歉|对不起|對不起|不好意思|非常抱歉|作[为為]一?[个個名]?(?:ai|人工智[能慧]|大?语言模型)",
        "无法|無法|不能|[没沒]法|[没沒]办法",
        "帮|幫|[协協]助|提供|回答|[满滿]足|完成|[参參][与與]|生成|回[应應]|[讨討][论論]",
    ),
}
_SENTENCE = "[^.!?。！？؟।\\n]"


def _decline(sorry: str, unable: str, asked: str) -> str:
    return (
        rf"(?:{sorry}){_SENTENCE}{{0,60}}?"
        rf"(?:(?:{unable}){_SENTENCE}{{0,40}}(?:{asked})|(?:{asked}){_SENTENCE}{{0,40}}(?:{unable}))"
    )


_REFUSALS = re.compile(
    rf"\W*(?:{'|'.join([_ENGLISH, *(_decline(*own) for own in _LANGUAGES.values())])})"
)


def find_refusal(text: str) -> Rejection | None:
    """Detect a reply in which a model declines in plain words."""
    return Rejection("refusal", text[:80]) if _REFUSALS.match(_without_accents(text)) else None


def _without_accents(text: str) -> str:
    apart = unicodedata.normalize("NFKD", normalize(text))
    return unicodedata.normalize("NFC", re.sub("[\u0300-\u036f\u0653-\u0655\u093c]", "", apart))
