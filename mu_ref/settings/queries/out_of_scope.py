"""Make queries that no setting serves, so that training sees what `none()` looks like.

Requests for other programs and other devices, questions of general knowledge, small talk, and
wishes too vague to act on; many name a setting's words without asking for it. Training only.
"""

import re

import numpy as np

from mu_ref.settings.queries.labelled import LabelledQuery

__all__ = ["out_of_scope_queries"]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))


_SLOTS = {
    "person": _listed("mum|dad|ben|sarah|my boss|my sister|tom|anna|the team|my wife|grandma|dave"),
    "app": _listed(
        "spotify|photoshop|excel|word|chrome|firefox|discord|zoom|teams|steam|netflix|outlook|"
        "whatsapp|powerpoint|blender|minecraft|notepad|youtube|slack|vlc|instagram|itunes"
    ),
    "thing": _listed(
        "living room lamp|kitchen lights|thermostat|coffee machine|front door|oven|tv|heating|"
        "washing machine|garage door|dishwasher|my watch|my phone|the printer in the office|"
        "the router|the projector at work|my car|the vacuum robot|the doorbell|the fridge"
    ),
    "place": _listed("leeds|paris|london|tokyo|new york|berlin|madrid|rome|chicago|sydney|oslo"),
    "file": _listed(
        "budget.xlsx|my tax form|the holiday photos|this file|report.docx|the desktop folder|"
        "my essay|the pdf|the zip file|my cv|these pictures|the video|the old backups"
    ),
    "topic": _listed(
        "bluetooth|wifi|a vpn|hdr|oled|usb|gdpr|a pixel|a cpu|ram|windows 11|the mouse|"
        "the keyboard|the internet|linux|a proxy server|dark mode|encryption|a cookie|a firewall|"
        "5g|a printer|battery acid|colour blindness|braille|sound|night vision|the moon|"
        "screen size|a microphone"
    ),
    "song": _listed(
        "some jazz|bohemian rhapsody|my workout playlist|the news|abba|classical music"
    ),
    "food": _listed("a large pizza|sushi|more ink|a new mouse|flowers|milk|a usb cable|headphones"),
    "n": ("2", "3", "5", "10", "15", "20", "30", "45", "six", "seven", "ten", "twenty"),
    "language": _listed("japanese|french|spanish|german|italian|welsh|latin|klingon"),
    "where": _listed(
        "in this photo|in my word document|in this spreadsheet|in the pdf|on my website|"
        "in photoshop|in the game|on my phone|in this presentation|in the email|on my tablet"
    ),
}

_TEMPLATES = _listed(
    "open {app}|close {app}|install {app}|install {app} for me|launch {app}|start {app}|"
    "uninstall {app} and reinstall it|update {app}|log me into {app}|restart {app}|quit {app}|"
    "mute the chat in {app}|mute the group on {app}|turn on subtitles in {app}|download {app}|"
    "change my {app} username|change my {app} password|block ads in {app}|clear my {app} history|"
    "delete my {app} account|open a new tab in {app}|bigger font in {app}|"
    "dark mode in {app} only|how much does {app} cost|who owns {app}|is {app} free|"
    "notifications from {app} to my watch|turn on {thing}|turn off {thing}|switch on {thing}|"
    "switch {thing} off|set {thing} to {n}|dim {thing}|{thing} off please|lock {thing}|"
    "make {thing} brighter|restart {thing}|connect {thing} to the wall|is {thing} on|"
    "turn {thing} down|how do i clean {thing}|text {person} that i'm late|"
    "send a message to {person}|call {person}|call {person} on {app}|write an email to {person}|"
    "email {person} the report|email {file} to {person}|remind me to call {person}|"
    "remind me in {n} minutes|set an alarm for {n}|wake me up at {n}|set a timer for {n} minutes|"
    "start a timer|add milk to my shopping list|order {food}|buy {food}|where can i buy {food}|"
    "how much is {food}|book a table for {n}|what's the weather in {place}|weather tomorrow|"
    "will it rain in {place}|flights to {place}|how far is {place}|directions to {place}|"
    "what time is it in {place}|news from {place}|book a hotel in {place}|"
    "the population of {place}|translate good morning into {language}|"
    "translate this page into {language}|how do you say thanks in {language}|teach me {language}|"
    "what is {topic}|what's {topic} good for|who invented {topic}|how does {topic} work|"
    "explain {topic}|when was {topic} invented|is {topic} bad for you|tell me about {topic}|"
    "what does {topic} mean|the history of {topic}|define {topic}|why is it called {topic}|"
    "which is better, {topic} or {topic}|difference between {topic} and {topic}|price of {topic}|"
    "a picture of {topic}|write a poem about {topic}|write an essay about {topic}|"
    "joke about {topic}|find {file}|delete {file}|rename {file}|open {file}|print {file}|"
    "copy {file} to the usb stick|zip {file}|share {file} with {person}|back up {file}|"
    "where did i save {file}|move {file}|make the text bold {where}|"
    "make the heading bigger {where}|change the colour {where}|invert the colours {where}|"
    "rotate the picture {where}|increase the font {where}|turn up the brightness {where}|"
    "crop it {where}|undo that {where}|spell check {where}|play {song}|pause the film|"
    "skip this song|next track|play {song} on {app}|stop the music video|who sings this|"
    "rate this song|record a video of me|take a photo of me|take a picture|"
    "how many ounces in a litre|what is {n} times {n}|square root of {n}|{n} plus {n}|"
    "how old is the queen|who won the match last night|capital of france|what's on tv tonight|"
    "how long do batteries last in a torch|how fast can people type|what day is it|"
    "what's the time|write a python function|debug my sql query|commit and push my branch|"
    "sum column b|make a pivot table|how do i write a loop|compile my project|run the tests|"
    "sort this list|fix it|make it better|help|help me|why|do something|change the settings|"
    "it's broken|something is wrong|it doesn't work|not like that|the other one|do it again|undo|"
    "ok|yes|no|make it nicer|this is annoying|what can i do here|make it work|settings please|"
    "speed it up|switch it|faster|hello|hi there|good morning|thanks|thank you|"
    "thanks, that's all|good night|how are you|are you a robot|do you dream|tell me a joke|"
    "i love you|you're great|i'm bored|i'm lonely|i'm hungry|my day was awful|"
    "i bought a new laptop|my cat sat on the keyboard|i had {food} for lunch|nice screen|"
    "what's your name|who made you|sing me a song|asdf|qwerty|lorem ipsum|test|blah blah|hmm|"
    "where is my phone|find my phone|find my keys|water the plants|walk the dog|do my homework|"
    "pay my phone bill|track my parcel|unsubscribe me from newsletters|mine bitcoin for me|"
    "share price of microsoft|how do i get a job|best laptop for students|"
    "move the taskbar to the top|put the clock on the left|change the icon of the recycle bin|"
    "overclock my cpu|add more memory|replace the battery|clean the screen with a cloth|"
    "my screen is cracked|the laptop fell on the floor|there's coffee on the keyboard|"
    "order a repair|where's the nearest shop|raise my hand in the meeting|"
    "share my screen in the meeting|leave the meeting|join the call|"
    "start a meeting with {person}|schedule a meeting with {person} at {n}|cancel my appointment|"
    "what's on my calendar|add a note|write this down|create a folder|empty this folder|"
    "how big is {file}|scan {file}"
)
_SLOT = re.compile(r"\{(\w+)\}")


def out_of_scope_queries(rng: np.random.Generator, n: int) -> list[LabelledQuery]:
    """Make queries whose call is `none()`.

    Args:
        rng: makes every choice.
        n: how many.

    Returns:
        `n` lower-case queries; repeats are possible.
    """

    def fill(match: re.Match[str]) -> str:
        options = _SLOTS[match[1]]
        return options[int(rng.random() * len(options))]

    drawn = rng.integers(0, len(_TEMPLATES), n)
    return [LabelledQuery(query=_SLOT.sub(fill, _TEMPLATES[i]), call="none()") for i in drawn]
