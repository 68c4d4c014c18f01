from skild_ray.report.page import Markup, element, join, table


def test_text_and_attributes_are_escaped_and_markup_is_not():
    inner = element("b", "a < b & c", title='say "no"')
    assert inner == '<b title="say &quot;no&quot;">a &lt; b &amp; c</b>'
    assert element("p", inner, "<i>", class_="note") == f'<p class="note">{inner}&lt;i&gt;</p>'


def test_join_keeps_markup_and_escapes_the_rest():
    assert join([Markup("<hr>"), "<hr>"]) == "<hr>&lt;hr&gt;"


def test_tables_escape_their_cells():
    shown = table(("what", "value"), [("<name>", "1 & 2")])
    assert "<th>what</th>" in shown
    assert "<td>&lt;name&gt;</td>" in shown
    assert '<td class="number">1 &amp; 2</td>' in shown
