"""Writes ``prompts.jsonl.gz``: short prompts of three kinds with choices, written for saledit.

    python data/abilities/generate.py

Sentiment shows one solved example of each answer first, half of the reviews are good; inference
sets what follows from a sentence against what it rules out; knowledge is the beginning of a
sentence with four ends. No text is taken from anywhere.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

GOOD = """
The food was wonderful and the staff could not have been kinder.
I laughed from the first scene to the last and would see it again.
A gripping story, beautifully told, with an ending that moved me.
The room was spotless, quiet, and had a lovely view of the lake.
These shoes are the most comfortable I have ever owned.
The lecture was clear, lively and full of ideas I could use.
My parcel came a day early and everything in it was perfect.
She sings with such warmth that the whole hall fell silent.
The repair took ten minutes and the phone works like new.
Fresh bread, strong coffee and a smile at the counter: a great start to the day.
The guide knew every stone of the castle and made history come alive.
Our children loved every minute of the show.
The book is funny, wise and impossible to put down.
The battery lasts two full days, which is far more than I hoped.
An honest mechanic who fixed the car for less than he had quoted.
The garden was in full bloom and the tea was delicious.
The new album is their best work in years.
We felt welcome from the moment we arrived.
The software saved me hours of dull work every week.
A charming little film with superb acting.
""".strip().splitlines()

BAD = """
The soup was cold and the waiter ignored us all evening.
I nearly fell asleep during this dull and endless film.
The plot makes no sense and the acting is painful to watch.
The room smelled of smoke and the bed was broken.
These shoes fell apart after a single week.
The lecture was confusing, and I learned nothing at all.
My parcel came three weeks late and half of it was missing.
He sang out of tune and forgot the words.
They charged me twice and the phone still does not work.
Stale bread, weak coffee and a rude cashier: never again.
The guide was bored and could not answer a single question.
Our children cried and asked to go home.
The book is tedious and full of mistakes.
The battery dies before noon, which makes the thing useless.
A dishonest mechanic who broke more than he fixed.
The garden was a muddy mess and the cake was dry.
The new album is a lazy disappointment.
We felt cheated from the moment we arrived.
The software crashes every hour and lost all my work.
A clumsy, boring film with terrible acting.
""".strip().splitlines()

#: Premise, what follows from it, what it rules out.
PAIRS = """
A man is playing a guitar on a stage.|a man is making music|a man is asleep in his bed
Two dogs are running across a field.|animals are outdoors|two cats are sleeping indoors
A woman is slicing tomatoes in the kitchen.|a woman is preparing food|a woman is swimming
Children are building a castle of sand.|children are playing|the children are in a classroom
The train left the station an hour ago.|the train is gone|the train is still at the station
All the lights in the house are off.|it is dark in the house|the house is brightly lit
Anna is taller than Ben.|Ben is shorter than Anna|Ben is taller than Anna
The bottle is completely empty.|there is nothing in the bottle|the bottle is full of water
A boy in a red coat throws a ball.|a boy is wearing a coat|a boy is wearing only blue
It has been raining all day without a pause.|the weather is wet|the day is dry and sunny
The shop is closed on Sundays.|one cannot buy there on a Sunday|the shop is open every day
Every student passed the exam.|no student failed the exam|most students failed the exam
The cup fell and broke into pieces.|the cup is broken|the cup is in one piece
A crowd is cheering for the winner.|people are making noise|the street is empty and silent
My brother lives alone on a farm.|my brother has no housemates|my brother lives with ten people
The soup is too hot to eat.|one should wait before eating the soup|the soup is as cold as ice
The museum opens at ten and it is nine now.|the museum is still closed|the museum is open now
Nobody came to the party.|the party had no guests|the party was crowded
The horse won the race.|the horse was the fastest|the horse came last
She has three sons and no other children.|she has no daughter|she has two daughters
The river is frozen over.|it is very cold|it is a hot summer day
He cannot swim.|deep water is dangerous for him|he is a champion swimmer
The old bridge was torn down last year.|the old bridge is gone|the old bridge is standing
A baby is crying loudly.|a child is unhappy|the baby is fast asleep
The plane has just landed.|the plane is on the ground|the plane is high in the sky
All roses in this garden are white.|there are no red roses here|the roses here are red
The dog is on the sofa.|the sofa is not empty|the dog is out in the garden
Tom sold his only car.|Tom no longer has a car|Tom still owns his car
The lake is ten meters deep.|one cannot stand in its middle|the water reaches to the ankles
The twins were born in May.|the twins have the same birthday month|one twin was born in June
""".strip().splitlines()

#: A beginning, its right end, three wrong ones.
KNOWN = """
A young dog is called a|puppy|kitten|calf|lamb
The opposite of hot is|cold|green|loud|heavy
Ice is frozen|water|milk|sand|air
The color of grass is|green|purple|orange|black
Birds have wings so that they can|fly|read|cook|type
We hear with our|ears|knees|teeth|elbows
The season after winter is|spring|autumn|noon|Monday
A week has seven|days|months|wheels|legs
The sun rises in the|east|west|evening|cellar
Bees make|honey|cheese|paper|glass
To cut paper one uses|scissors|soup|a pillow|a lamp
A spider has eight|legs|tails|wheels|wives
Fish breathe with their|gills|fins|scales|tails
The first month of the year is|January|July|October|Friday
A person who flies a plane is a|pilot|baker|farmer|tailor
Milk comes from|cows|trees|rocks|clouds
When water boils it turns into|steam|ice|stone|wood
One keeps food cold in a|refrigerator|oven|drawer|mailbox
Two plus two is|four|nine|seven|one
The king's wife is the|queen|nurse|judge|cook
A doctor works in a|hospital|bakery|garage|stable
To see in the dark one needs a|light|spoon|blanket|ladder
The capital of a country is a|city|river|mountain|lake
Lemons taste|sour|salty|silent|square
Trees grow from|seeds|coins|nails|letters
A carpenter works with|wood|bread|wool|ink
Snow is|white|red|blue|brown
One wears gloves on the|hands|feet|ears|knees
The moon is seen mostly at|night|school|lunch|sea
A book is made of many|pages|bricks|eggs|wheels
A car needs fuel to|move|sleep|sing|grow
One opens a locked door with a|key|fork|towel|brush
""".strip().splitlines()

_SENTIMENT = """Review: I would come back any day, it was a delight.
Sentiment: positive
Review: A waste of money, I want it back.
Sentiment: negative
Review: {}
Sentiment:"""

_INFERENCE = "{} It follows that"


def records() -> list[dict[str, object]]:
    """All prompts."""
    out: list[dict[str, object]] = []

    def add(kind: str, prompt: str, choices: list[str], answer: str) -> None:
        row = {"id": f"{kind}-{len(out):03}", "kind": kind, "prompt": prompt}
        out.append(row | {"choices": choices, "answer": answer})

    for texts, answer in ((GOOD, "positive"), (BAD, "negative")):
        for text in texts:
            add("sentiment", _SENTIMENT.format(text), ["positive", "negative"], answer)
    for line in PAIRS:
        premise, follows, ruled_out = line.split("|")
        add("inference", _INFERENCE.format(premise), [follows, ruled_out], follows)
    for line in KNOWN:
        beginning, *ends = line.split("|")
        add("knowledge", beginning, ends, ends[0])
    return out


def main() -> None:
    """Write the file; the same bytes every time."""
    path = Path(__file__).with_name("prompts.jsonl.gz")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in records())
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
