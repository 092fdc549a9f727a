"""Functions of the test tasks."""


def images(doc):
    return list(doc["images"])


def first_image(doc):
    return doc["images"][0]


def question(doc, **_):
    return doc["question"]


def first_choice(doc):
    return " " + doc["choices"][0]


def exact_match(doc, results):
    return {"score": float(results[0] == doc["choices"][doc["answer"]])}


def loss_and_greedy(doc, results):
    loss, is_greedy = results[0]
    return {"loss": loss, "greedy": float(is_greedy)}


def rounds(doc, previous_output=None, round_idx=0, previous_round_info=None, **_):
    """Ask twice: the first picture, then all of them again with the first answer."""
    if round_idx == 0:
        return doc["question"]
    finished = round_idx == 2
    information = (previous_round_info or 0) + 1
    return images(doc), f"{doc['question']} you said {previous_output[-1]}", finished, previous_output, information


def count_rounds(doc, results):
    return {"rounds": float(len(results[0]))}
