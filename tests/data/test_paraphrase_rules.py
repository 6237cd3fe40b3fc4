"""What each rule of the rewriter does, and rewordings that none of them may make."""

from __future__ import annotations

import pytest

from saledit.data.paraphrase import Rewording, reword

# One example for each rule: sentence, kind, the rewording that has to be among the results.
RULES = [
    ("A kid is eating pizza.", "synonym", "A child is eating pizza."),
    ("Two kids sit on a couch.", "synonym", "Two children sit on a couch."),
    ("An infant is on the sofa.", "synonym", "A baby is on the sofa."),
    ("It is an odd plan.", "synonym", "It is a strange plan."),
    ("Shrek is a movie.", "synonym", "Shrek is a film."),
    ("The show began in 1990.", "synonym", "The show started in 1990."),
    ("The show has begun in earnest.", "synonym", "The show has started in earnest."),
    ("The show has started in earnest.", "synonym", "The show has begun in earnest."),
    ("She purchased an apple.", "synonym", "She bought an apple."),
    ("A man is standing outside.", "synonym", "A man is standing outdoors."),
    ("Oslo is located in Norway.", "synonym", "Oslo is situated in Norway."),
    ("The cat is near the door.", "synonym", "The cat is close to the door."),
    ("Elvis Presley died in 1977.", "synonym", "Elvis Presley passed away in 1977."),
    ("The plan is not good.", "contraction", "The plan isn't good."),
    ("They cannot swim.", "contraction", "They can't swim."),
    ("There is a dog.", "contraction", "There's a dog."),
    ("We have finished the work.", "contraction", "We've finished the work."),
    ("The plan isn't good.", "expansion", "The plan is not good."),
    ("They won't come.", "expansion", "They will not come."),
    ("It's a long road.", "expansion", "It is a long road."),
    (
        "A man is sleeping on a bench.",
        "there-insertion",
        "There is a man sleeping on a bench.",
    ),
    ("People are dancing.", "there-insertion", "There are people dancing."),
    (
        "A man in a red hat walking home",
        "there-insertion",
        "There is a man in a red hat walking home",
    ),
    (
        "There is a man sleeping on a bench.",
        "there-removal",
        "A man is sleeping on a bench.",
    ),
    ("A man is sleeping.", "relative", "There is a man who is sleeping."),
    ("A man is sleeping.", "cleft", "It is a man that is sleeping."),
    ("The bird is in the tree.", "inversion", "In the tree is the bird."),
    ("A woman brushes her teeth.", "aspect", "A woman is brushing her teeth."),
    ("Two boys sit on a wall.", "aspect", "Two boys are sitting on a wall."),
    ("A man riding a horse", "copula", "A man is riding a horse"),
    ("Man walking down a road.", "article", "A man walking down a road."),
    ("A boy is riding a horse.", "passive", "A horse is being ridden by a boy."),
    ("A horse is being ridden by a boy.", "active", "A boy is riding a horse."),
    ("The man is running in the park.", "fronting", "In the park, the man is running."),
    ("The war ended in 1945.", "fronting", "In 1945, the war ended."),
    ("The war ended in 1945.", "cleft", "It was in 1945 that the war ended."),
    ("He left because he was ill.", "clause-order", "Because he was ill, he left."),
    ("When she called, he was asleep.", "clause-order", "He was asleep when she called."),
    ("A man and a boy are talking.", "conjunct-swap", "A boy and a man are talking."),
    ("I think he is right.", "complementizer", "I think that he is right."),
    ("I think that he is right.", "complementizer", "I think he is right."),
    ("She met a man that was old.", "relativizer", "She met a man who was old."),
    ("A man in a red shirt sings.", "attire", "A man wearing a red shirt sings."),
    ("Marie Curie was born in Warsaw.", "where", "Warsaw is where Marie Curie was born."),
    ("Marie Curie was born in Warsaw.", "nominal", "The birthplace of Marie Curie is Warsaw."),
    ("Marie Curie was born in 1867.", "nominal", "Marie Curie's year of birth is 1867."),
    (
        "Jaws was directed by Steven Spielberg.",
        "active",
        "Steven Spielberg directed Jaws.",
    ),
    (
        "Steven Spielberg directed Jurassic Park.",
        "passive",
        "Jurassic Park was directed by Steven Spielberg.",
    ),
    (
        "Steven Spielberg directed Jurassic Park.",
        "nominal",
        "Steven Spielberg was the director of Jurassic Park.",
    ),
    (
        "Tom Hanks played Forrest Gump in Forrest Gump.",
        "passive",
        "Forrest Gump was played by Tom Hanks in Forrest Gump.",
    ),
    ("Cast Away stars Tom Hanks.", "converse", "Tom Hanks stars in Cast Away."),
    ("Paris is the capital of France.", "identity", "France's capital is Paris."),
    ("France's capital is Paris.", "identity", "Paris is France's capital."),
    (
        "France's first president was popular.",
        "genitive",
        "The first president of France was popular.",
    ),
    ("Tom Hanks is an actor.", "profession", "Tom Hanks works as an actor."),
    ("Tom Hanks is an actor.", "pseudo-cleft", "An actor is what Tom Hanks is."),
    (
        "Tom Hanks is an American actor.",
        "nationality",
        "Tom Hanks is an actor from the United States.",
    ),
    ("Tom Hanks is an American actor.", "relative", "Tom Hanks is an actor who is American."),
    ("The plan failed badly.", "frame", "It is true that the plan failed badly."),
    ("Do you like tea?", "frame", "Is it true that you like tea?"),
]


@pytest.mark.parametrize(("sentence", "kind", "expected"), RULES)
def test_each_rule_rewords_its_example(sentence, kind, expected):
    assert Rewording(expected, kind) in reword(sentence)


@pytest.mark.parametrize(
    ("sentence", "forbidden"),
    [
        ("A man is not sleeping.", "There is a man not sleeping."),
        ("A man is not sleeping.", "It is a man that is not sleeping."),
        ("He did not leave because he was ill.", "Because he was ill, he did not leave."),
        ("No man is sleeping in the park.", "In the park, no man is sleeping."),
        ("The Big Short is a film.", "The Large Short is a film."),
        ("Raees (film) stars Mahira Khan.", "Raees (movie) stars Mahira Khan."),
        ("A child seat is broken.", "A kid seat is broken."),
        ("The purchase was made.", "The buy was made."),
        ("You like tea, don't you?", "You like tea, do not you?"),
        ("A lion is a mammal.", "There is a lion that is a mammal."),
        ("He tries too hard to win.", "He tries too difficult to win."),
        ("A man wearing trunks plays ball.", "A man is wearing trunks plays ball."),
        ("Men are mortal.", "Guys are mortal."),
        ("She was the first woman in space.", "She was the first lady in space."),
    ],
)
def test_unsafe_rewordings_are_not_made(sentence, forbidden):
    assert forbidden not in [item.text for item in reword(sentence)]


@pytest.mark.parametrize(
    "sentence",
    ["Is a man sleeping?", "Nobody is reading a book.", "He only appeared in one film in 1999."],
)
def test_words_are_not_moved_around_scope(sentence):
    moved = {"cleft", "fronting", "there-insertion", "passive", "inversion", "identity", "converse"}
    assert not moved & {item.kind for item in reword(sentence)}
