"""Constants of the audio that both models take."""

from __future__ import annotations

import math

SAMPLE_RATE_HZ = 16_000
WINDOW_S = 30.0  # both models see audio in windows of 30 s
#: For Whisper the lab cuts long audio in quiet places; a window is that much shorter on average.
WINDOW_REACH_S = 3.0
MEL_FRAMES_PER_WINDOW = 3_000  # 10 ms hop
ENCODER_POSITIONS = 1_500  # conv2 halves the frames
VOXTRAL_TOKENS_PER_WINDOW = 375  # 12.5 audio tokens per second
VOXTRAL_MAX_TRANSCRIBE_S = 30 * 60.0  # model card
VOXTRAL_MAX_ANSWER_S = 40 * 60.0  # model card
VOXTRAL_CONTEXT_TOKENS = 32 * 1024  # model card
WHISPER_MAX_TARGET_POSITIONS = 448
#: Of Whisper where it is unsure of a window: what faster-whisper and the command of openai-whisper
#: have by default.
UNSURE_BEAMS = 5
#: Tokens of an English-only Whisper: GPT-2's, special ones, times. A multilingual one has more.
WHISPER_ENGLISH_TOKENS = 51_864
#: Tokens of a multilingual Whisper that are no language.
WHISPER_NO_LANGUAGE_TOKENS = 51_766
#: Shorter audio holds no word: OpenAI's API refuses it, and Whisper makes one up.
MIN_AUDIO_S = 0.1
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
