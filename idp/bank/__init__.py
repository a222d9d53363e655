"""What a prompt is, and where prompts are kept."""

from idp.bank.agreement import common_fingerprint
from idp.bank.bank import PromptBank
from idp.bank.fingerprint import Fingerprint
from idp.bank.merge import merge_banks
from idp.bank.prompt import Prompt
from idp.bank.state import SelectorState
from idp.bank.text import load_text_prompts, text_bank
from idp.bank.vectors import PromptVector

__all__ = [
    "Fingerprint",
    "Prompt",
    "PromptBank",
    "PromptVector",
    "SelectorState",
    "common_fingerprint",
    "load_text_prompts",
    "merge_banks",
    "text_bank",
]
