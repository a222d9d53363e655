"""What a prompt is, and where prompts are kept."""

from idp.bank.bank import PromptBank
from idp.bank.fingerprint import Fingerprint
from idp.bank.prompt import Prompt
from idp.bank.state import SelectorState
from idp.bank.text import load_text_prompts, text_bank

__all__ = ["Fingerprint", "Prompt", "PromptBank", "SelectorState", "load_text_prompts", "text_bank"]
