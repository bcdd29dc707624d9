"""Constants of the audio that both models take."""

from __future__ import annotations

import math

SAMPLE_RATE_HZ = 16_000
WINDOW_S = 30.0  # both models see audio in windows of 30 s
#: For Whisper the lab cuts long audio evenly; a border may move so far to a quiet place.
WINDOW_REACH_S = 3.0
MEL_FRAMES_PER_WINDOW = 3_000  # 10 ms hop
ENCODER_POSITIONS = 1_500  # conv2 halves the frames
VOXTRAL_TOKENS_PER_WINDOW = 375  # 12.5 audio tokens per second
VOXTRAL_MAX_TRANSCRIBE_S = 30 * 60.0  # model card
VOXTRAL_MAX_ANSWER_S = 40 * 60.0  # model card
WHISPER_MAX_TARGET_POSITIONS = 448
_CODES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta "
    "no th ur hr bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk "
    "sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb "
    "my bo tl mg as tt ln ha ba su "
)
#: Codes of ISO 639-1 that Whisper of every size and Voxtral both take. Whisper's 'haw', 'jw' and
#: 'yue' are no such codes.
LANGUAGES = _CODES.split()

#: As dense as speech is: read by a fast synthesiser, 30 s of English have 167 tokens.
MOST_TRANSCRIPT_TOKENS_PER_WINDOW = 224


#: Most tokens of an answer where nobody asks for another limit.
ANSWER_TOKENS = 200
#: Tokens of a window that a Whisper with random weights, which never ends by itself, is given to
#: decode where nobody asks for another number.
FIXED_TOKENS_PER_WINDOW = 64


def transcript_tokens(audio_s: float) -> int:
    """Most tokens that an LLM's transcript of so many seconds may need."""
    return MOST_TRANSCRIPT_TOKENS_PER_WINDOW * max(1, math.ceil(audio_s / WINDOW_S))
