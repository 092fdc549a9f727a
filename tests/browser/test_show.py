"""The page of `lmms-tokendrop show` in a browser."""

import pytest
from selenium.webdriver.common.keys import Keys
from tiny_models import tiny_image

from lmms_tokendrop.show.asking import LoadedVariant
from lmms_tokendrop.show.running import PAGE, write

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def written(tmp_path_factory, tiny_checkpoint):
    """Return the page of a method with merged windows, key tokens and several stages."""
    folder = tmp_path_factory.mktemp("show")
    tiny_image(84, 60).save(folder / "picture.png")
    arguments = f"pretrained={tiny_checkpoint()},keep_ratio=0.45,merge_threshold=0.6"
    loaded = LoadedVariant("llava_next_mustdrop", arguments, max_new_tokens=2)
    write(loaded, folder / "picture.png", "what colour is the square ?", folder)
    return folder / PAGE


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everyone_can_read_it(page, written, scheme):
    page.scheme(scheme)
    page.open(written)
    for summary in page.all("details:not([open]) > summary"):
        summary.click()
    assert page.problems() == []
    assert not page.overflows()


def test_pictures_are_there_and_words_say_what_they_show(page, written):
    page.open(written)
    pictures = page.all("details[open] img")
    assert all(page.driver.execute_script("return arguments[0].naturalWidth", picture) for picture in pictures)
    words = [picture.get_attribute("alt") for picture in pictures]
    assert words[0].startswith("The image as the model sees it")
    assert any("merged into these" in line for line in words)
    assert any("of them key tokens" in line for line in words)
    assert any(line.startswith("The cache after the answer") for line in words)
    assert any(line.startswith("Scores of") for line in words)
    assert [cell.text for cell in page.all("tr > th[scope=row]")] == ["mustdrop", "all tokens", "random dropping"]


def test_the_keyboard_opens_and_closes_stages(page, written):
    page.open(written)
    reached = page.tabbed()
    assert reached == page.all("summary")
    picture = page.all("details[open] img")[0]
    reached[0].send_keys(Keys.ENTER)
    page.until(lambda: not picture.is_displayed())
    reached[0].send_keys(Keys.ENTER)
    page.until(picture.is_displayed)


def test_a_narrow_window_does_not_scroll_sideways(page, written):
    page.width(360)
    page.open(written)
    assert not page.overflows()
