"""Short everyday English sentences for training and measuring the small speech codec.

Templates with slots, authored here; `sentences(count, seed)` fills them at random without repeating one. They speak of
greetings, movements, feelings, food, journeys and of the six worlds of the demo's characters, so that the codec hears
all common sounds of the language in many neighbourhoods.
"""

import random
import re

SLOTS: dict[str, tuple[str, ...]] = {
    "name": tuple(
        "Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maya Noah Olive Paul Quinn Rosa Sam Tara Uma "
        "Victor Wendy Xavier Yara Zoe George Judith Theo Heather".split()
    ),
    "hello": ("Hello", "Hi there", "Good morning", "Good evening", "Welcome back", "Hey", "Greetings", "Good day"),
    "bye": ("Goodbye", "See you soon", "Take care", "Farewell", "Until tomorrow", "Good night", "Have a safe trip"),
    "move": (
        "wave", "bow", "nod", "jump", "dance", "kick", "spin around", "walk", "run", "crawl", "roll over", "clap",
        "shrug", "point at the door", "salute", "raise both hands", "cross your arms", "shake your head", "get up",
        "do a cartwheel", "do a backflip", "throw a punch", "offer me your hand", "give a thumbs up", "turn left",
        "scratch your head", "put your hands on your hips", "put a hand on your heart", "stand still", "sit down",
        "stretch your legs", "step back", "come closer", "bend your knees", "lift one foot", "look behind you",
    ),
    "moving": (
        "waving", "bowing", "nodding", "jumping", "dancing", "kicking", "spinning", "walking", "running", "crawling",
        "rolling", "clapping", "shrugging", "pointing", "saluting", "cheering", "stretching", "punching", "limping",
        "turning in circles", "hopping on one leg", "shaking your fist", "tapping your shoe", "balancing on the edge",
    ),
    "how": (
        "slowly", "quickly", "once more", "like a bird", "as high as you can", "without a sound", "with both hands",
        "for the whole crew", "right now", "before the music stops", "with a big smile", "very gently", "twice",
        "as if you were tired", "just for fun", "in front of the mirror", "toward the window", "until I say stop",
    ),
    "feeling": (
        "happy", "tired", "nervous", "proud", "curious", "lonely", "brave", "hungry", "calm", "angry", "surprised",
        "thirsty", "cheerful", "confused", "grateful", "bored", "ashamed", "excited", "worried", "relieved",
    ),
    "thing": (
        "hammer", "lantern", "blanket", "ladder", "umbrella", "basket", "mirror", "candle", "violin", "bicycle",
        "suitcase", "pencil", "telescope", "whistle", "rope", "glove", "jacket", "bottle", "feather", "puzzle",
        "kettle", "trumpet", "scarf", "wheel", "button", "treasure chest", "yellow box", "silver key", "old watch",
    ),
    "place": (
        "kitchen", "garden", "harbor", "library", "market", "bridge", "castle", "forest", "station", "workshop",
        "village", "beach", "tower", "theater", "museum", "cellar", "mountain", "valley", "bakery", "courtyard",
    ),
    "food": (
        "soup", "bread", "cheese", "apple pie", "fish", "rice", "pancakes", "chocolate", "salad", "mushrooms", "honey",
        "potatoes", "noodles", "strawberries", "garlic", "beef stew", "boiled eggs", "peach juice", "vegetables",
    ),
    "weather": ("rain", "snow", "fog", "thunder", "sunshine", "a cold wind", "a storm", "ice", "heat", "drizzle"),
    "time": (
        "today", "tomorrow", "tonight", "this afternoon", "on Thursday", "in the morning", "next week", "at noon",
        "after lunch", "before sunrise", "last year", "every Sunday", "in July", "at half past five", "in a minute",
    ),
    "number": tuple("two three four five six seven eight nine ten eleven twelve fifteen twenty thirty fifty".split()),
    "color": tuple("red blue green yellow purple orange black white brown gray pink golden".split()),
    "animal": tuple(
        "dog cat horse parrot whale rabbit owl fox goat turtle mouse bear shark butterfly chicken".split()
    ),
    "adjective": (
        "beautiful", "strange", "heavy", "broken", "quiet", "huge", "tiny", "clever", "dangerous", "useful", "soft",
        "shiny", "ancient", "empty", "delicious", "terrible", "wonderful", "fresh", "rough", "smooth", "fragile",
    ),
    "sea": (
        "raise the anchor", "trim the sails", "steer toward the lighthouse", "scrub the deck", "check the compass",
        "load the barrels", "tie a good knot", "watch the horizon", "follow the north star", "launch the small boat",
    ),
    "robot": (
        "my battery is nearly full", "a gear in my elbow is loose", "my sensors see two hands",
        "my memory is updating", "the signal from the satellite is weak", "I am switching to dance mode",
        "my joints need oil", "I have measured your jump", "the calculation is finished",
        "a wire is missing in my shoulder",
    ),
    "magic": (
        "the potion must bubble for an hour", "this wand chooses its owner", "a dragon sleeps under the tower",
        "the spell needs three drops of moonlight", "my broom is out of shape", "the crystal shows your future",
        "the old book opens by itself", "never touch the green powder", "every charm has a price",
    ),
    "cook": (
        "chop the onions first", "stir the sauce with a wooden spoon", "add a pinch of salt", "the oven is too hot",
        "taste the broth before you serve it", "roll the dough very thin", "wash your hands before you cook",
        "peel the carrots", "the pepper makes me sneeze", "whip the cream until it is stiff",
    ),
    "case": (
        "the footprints lead to the cellar", "someone moved the painting", "the butler has an alibi", "I need a clue",
        "the window was forced open", "there is mud on your boots", "the thief wore leather gloves",
        "the jewel vanished at midnight", "you were seen near the vault", "this letter is a forgery",
    ),
    "garden": (
        "water the roses", "pull out the weeds", "the tulips need more light", "plant the seeds in rows",
        "the bees love this lavender", "rake the leaves", "trim the hedge", "the tomatoes are ripe",
        "cover the bulbs before the frost", "dig a hole for the cherry tree",
    ),
    "dance": (
        "keep your back straight", "count to eight and turn", "bend your knees before you leap", "feel the rhythm",
        "follow my steps", "stretch your arms", "land softly on your toes", "the show begins soon",
        "breathe out and relax your shoulders", "warm up before you kick",
    ),
    "hobby": (
        "painting", "chess", "fishing", "swimming", "reading", "singing", "cycling", "knitting", "climbing", "skating",
        "photography", "juggling", "baking", "sailing", "archery", "gardening", "yoga", "playing the guitar",
    ),
    "job": tuple(
        "teacher doctor sailor farmer pilot judge nurse painter carpenter singer guard journalist".split()
    ),
    "person": (
        "my brother", "your sister", "the captain", "the old wizard", "our neighbor", "the chef", "a young girl",
        "the detective", "the gardener", "this robot", "my grandmother", "the whole team", "their uncle", "a stranger",
    ),
    "past": (
        "found the {thing}", "lost a {thing}", "went to the {place}", "cooked some {food}", "saw a {color} {animal}",
        "told me a joke", "asked for help", "slept for {number} hours", "fixed the {thing}", "fell off the {thing}",
        "laughed at me", "built a {adjective} house", "forgot the {thing}", "brought us {food}", "sang in the {place}",
    ),
}  # fmt: skip

TEMPLATES: tuple[str, ...] = (
    "{hello}, {name}.", "{hello}, how are you {time}?", "{bye}, {name}.", "{bye}, my friend.",
    "{hello}, my name is {name}.", "Please {move}.", "Can you {move} {how}?", "Please {move} {how}.",
    "Now {move} and then {move}.", "Could you {move} for me?", "I want to see you {move}.", "Show me how you {move}.",
    "Watch me while I {move}.", "Why are you {moving}?", "You are {moving}, I can see that.",
    "What am I doing, am I {moving}?", "Are you {moving} or {moving}?", "Stop {moving}, please.",
    "I think you are {moving} because you are {feeling}.", "Do you feel {feeling} {time}?",
    "I am {feeling} and a little {feeling}.", "You look {feeling}.", "{person} is {feeling} {time}.",
    "Where is the {thing}?", "The {thing} is in the {place}.", "I left my {thing} in the {place}.",
    "Give me the {color} {thing}.", "That {thing} looks {adjective}.", "This {place} is {adjective} and {adjective}.",
    "Let us meet at the {place} {time}.", "How far is the {place}?", "We have {number} {color} {thing}s.",
    "Is there any {food} left?", "I would like some {food}, please.", "{person} loves {food} with {food}.",
    "The {food} smells {adjective}.", "They say {weather} is coming {time}.", "I do not like {weather}.",
    "Look at that {color} {animal}!", "My {animal} is {adjective}.", "A {animal} just ran through the {place}.",
    "Captain, we should {sea}.", "Sailor, {sea} before the storm.", "Quick, {sea}!", "Yes sir, I will {sea} {time}.",
    "Attention, {robot}.", "Human, {robot}.", "Sorry, {robot}.", "Listen, {magic}.", "Beware, {magic}.",
    "Apprentice, {magic}.", "Remember, {cook}.", "In my kitchen, {cook}.", "Oh no, {cook}!", "Tell me why {case}.",
    "Interesting, {case}.", "Inspector, {case}.", "Spring is here, so {garden}.", "Be careful when you {sea}.",
    "First {garden}, please.", "Dancers, {dance}.", "Once again, {dance}.", "Good, now {dance}.",
    "Do you enjoy {hobby}?", "{person} taught me {hobby}.", "I prefer {hobby} to {hobby}.", "{person} {past}.",
    "I heard that {person} {past} {time}.", "Did you know that {person} {past}?", "We {past} {time}.",
    "My father was a {job}.", "She wants to become a {job}.", "There are {number} steps to the {place}.",
    "It costs {number} dollars.", "I will be there in {number} minutes.", "Thank you for the {adjective} {thing}.",
    "What a {adjective} idea!", "That was {adjective}, well done.", "No, I would never {move} {how}.",
    "Yes, of course I can {move}.", "Who taught you to {move}?", "Nice to meet you, {name}.",
    "Have you ever been to the {place}?", "I shall wait for you {time}.", "The {animal} chased the {animal}.",
    "Which {thing} is yours, the {color} one?", "Your {thing} is {color}.", "Let me help you with the {thing}.",
    "Could we {move} together {time}?", "When you {move}, I will {move} too.", "I could not hear you, {name}.",
)  # fmt: skip


def sentences(count: int, seed: int = 0) -> list[str]:
    """`count` different sentences in random order, the same for the same seed.

    Raises:
        ValueError: `count` below 1, or more than the templates yield.
    """
    if count < 1:
        raise ValueError(f"count is {count}, expected at least 1")
    generator = random.Random(seed)
    found: dict[str, None] = {}
    for attempt in range(40 * count):
        # Templates take turns, so that none is rare.
        found.setdefault(fill(TEMPLATES[attempt % len(TEMPLATES)], generator))
        if len(found) == count:
            result = list(found)
            generator.shuffle(result)
            return result
    raise ValueError(f"count is {count}, the templates yield only about {len(found)} different sentences")


def fill(template: str, generator: random.Random) -> str:
    """One sentence from a template like "Please {move}."; slots may hold slots."""
    while "{" in template:
        template = re.sub(r"\{(\w+)\}", lambda match: generator.choice(SLOTS[match.group(1)]), template)
    template = re.sub(r"\b([Aa]) (?=[aeiouAEIOU])(?!uniform|useful)", r"\1n ", template)
    template = re.sub(r"(x|ch)s\b", r"\1es", template)  # boxes, watches
    return template[0].upper() + template[1:]
