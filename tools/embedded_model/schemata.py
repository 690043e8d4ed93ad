"""The plots. Each is a template: `[a|b|c]` is a choice (it may nest), `{h}` a word of the cast, `<name>` a part below.

The cast: `h` hero, `f` friend, `e` parent; `.he .him .his .a` with `.He .His .A` for a sentence's start; `t` a thing
(`t` with its color, `t.n` the noun, `t.a` with article); `p.in p.to` the place and `s1 s2 s3` spots in it.
A line break counts as a space. Each story is a handful of short sentences, about 130 tokens.
"""

PARTS = {
    "intro": """
        [Once upon a time, there was {h.a} named {h}.|Once upon a time, there was {h.a} named {h}.
            |Once upon a time, there was {h.a} named {h}.|Once there was {h.a} named {h}.
            |There was once {h.a} named {h}. |{h} was {h.a}.|Long ago, {h.a} named {h} lived {home}.
            |Once upon a time, {h.a} named {h} lived {home}. |{h} was {h.a} who lived {home}.
            |A long time ago, there was {h.a} named {h}. |This is a story about {h}, {h.a}.
            |In a [small|quiet] village, there lived {h.a} named {h}.
            |In the middle of the forest, there lived {h.a} named {h}.|{h} lived {home}.]
    """,
    "intro_unnamed": """
        [Once upon a time, there was {h.a}.|Once there was {h.a}.|There was once {h.a} who lived {home}.
            |Once upon a time, {h.a} lived {home}.|{h.A} lived {home}.|Long ago, {h.a} lived {home}.]
    """,
    "day": """
        [One day,|One day,|One day,|One morning,|One sunny day,|One afternoon,|One fine morning,|One windy day,
            |One evening,]
    """,
    "friend": """{f.full}""",
    "cry": """
        [{h} began to cry.|{h} was very sad.|{h} felt sad.|A tear ran down {h.his} face.|{h} did not know what
            to do.]
    """,
    "why": """
        ["What is wrong?" asked <friend>.|<friend> came by and asked, "Why are you sad?"
            |<friend> saw this and asked, "What is the matter?"|Then {h} met <friend>. "Why are you so sad?"
            asked {f}.]
    """,
    "offer": """
        ["Do not worry," said {f}. "I will help you."|"I can help," said {f}.|"Let us do it together," said {f}.
            |"Come with me," said {f}. "I have an idea."]
    """,
    "thanks": """
        ["Thank you!" said {h}.|"Thank you, {f}," said {h}.|{h} hugged {f} and said, "Thank you!"
            |"You are a good friend," said {h}.|{h} was so happy that {h.he} hugged {f}.]
    """,
    "end": """
        [They laughed and played until the sun went down. |And they both went home happy.
            |From that day on, they were the best of friends.|It was a very good day.
            |That night, {h} went to bed with a smile.|{H} never forgot that day.|And {h} was happy all day
            long.]
    """,
    "alone_end": """
        [That night, {h} slept very well.|{H} went to bed with a smile.|{H} never forgot that day.
            |It was the best day of all.|And {h} was very proud.|And {h} was happy all day long.]
    """,
    "love": """
        [{h.He} loved to [play|sing|dance|run|read|swim|draw|explore|tell stories|climb trees|look at the
            stars].
            |{h.He} liked to [play|walk|sit|sing|read|draw] {p.in}.
            |{h.He} was always [happy|busy|kind to everyone|full of ideas].|]
    """,
    "thanks_f": """["Thank you," said {f}.|{f} smiled and said, "Thank you!"|"You are very kind," said {f}.]""",
}

LOST = """
    [<intro> [{h.He} had {t.a} and took it everywhere.|{h.He} had {t.a} and loved it very much. |{h.His}
        favorite thing was {t.a}.]
        |{h} had {t.a}.|{h} loved {h.his} {t}.|"Where is my {t}?" asked {h}.
        |{h} got {t.a} from {e}.] <day> [{h} went {p.to} and lost it.|{h} could not find the {t.n}.
        |{h} took it {p.to}. Soon the {t.n} was gone. |{h} was {p.in} when the {t.n} was gone.]
    [{h.He} looked {s1}, but it was not there.|{h.He} looked {s1} and {s2}, but it was not there.|<cry>||]
    <why> ["I lost my {t.n}," said {h}.|"I cannot find my {t}," said {h}.]
    <offer> [They looked {s3}, and there was the {t.n}!|At last, they found it {s3}.|Soon {f} found the
        {t.n} {s3}.
        |They looked and looked. At last, {f} found it {s3}.]
    <thanks> [<end>|From then on, {h} took good care of {h.his} {t.n}.|They played with the {t.n} all day.]
"""

SHARE = """
    [<intro>|<intro> <love>|{h} and {f} were good friends.]
    <day> [{h} found {food.a} {p.in}.|{h} had {food.a}.|{h} got {food.a} from {e}.]
    ["It is all mine," said {h}.|{h} wanted to eat it all alone.|{h} was just about to eat it.]
    Then <friend> came by.
    [{f} was very hungry.|"I am so hungry," said {f}.|"May I have a bite?" asked {f}. |"That looks good,"
        said {f}.]
    [{h} thought about it for a moment.|{h} looked at the {food} and then at {f}.
        |At first, {h} did not want to share.||]
    [Then {h} cut the {food} in two.|Then {h} gave half of it to {f}. |Then {h} said, "Let us share it."]
    [They sat down and ate together.|They ate it together {p.in}.|The {food} was sweet, and they ate every
        bit.]
    [The next day, {f} brought {food2.a} and shared it with {h}.|"It tastes better when we share," said {h}.
        |<thanks_f>||]
    [<end>|They learned that sharing makes good things better.|To share is to have a friend.]
"""

FEAR = """
    [<intro> {h.He}|<intro> {h.He}|{H}] was [afraid|very afraid|a little afraid] of {fear}.
    [<day> {f.full} said, "[Come with me|Take my hand|Let me show you something]."
        |"[I am scared|I cannot do it]," {h} told {e}. "{fear.say}," said {e}.
        |<day> {h} told {e} about it. "{fear.say}," said {e}.
        |Every night {h.he} thought about it. So {h.he} told {e}. "{fear.say}," said {e}.]
    [{h} took a deep breath.|{h} was still afraid, but {h.he} tried.|{h} closed {h.his} eyes and counted to
        three.
        |So {h} tried, one small step at a time.]
    [Then {h.he} saw that {fear.near}.|And what a surprise! {fear.Near}.
        |Slowly, {h} opened {h.his} eyes. {fear.Near}.]
    ["It is not so bad," said {h}.|"I did it!" said {h}. |{h} began to smile.|"I am not afraid anymore,"
        said {h}.||]
    [From that day on, {h} was not afraid of {fear}. |{h} was brave, and {h.he} knew it.
        |To be brave is to try, even when you are afraid.|<alone_end>]
"""

RESCUE = """
    [<intro> <love>|<intro>|]
    <day> {h} [went for a walk {p.in}|was walking {p.in}|went {p.to}|was playing {p.in}].
    [There {h.he} saw {pet.a}.|{h.He} heard a small voice, and there was {pet.a}.
        |{h.He} heard a small sound. It was {pet.a}.]
    [The {pet} {pet.trouble}.|It {pet.trouble}.|The poor {pet} {pet.trouble}.]
    ["Do not be afraid," said {h}. "I will help you."|"Oh no!" said {h}. "I must help."|{h} wanted to help.
        |"Poor little {pet}," said {h}.||]
    [{h.He} {pet.help}.|Very carefully, {h.he} {pet.help}.|So {h.he} {pet.help}.]
    [Soon the {pet} felt better.|The {pet} looked at {h} and was not afraid.|The {pet} was safe.||]
    [The next day, the {pet} came back to say hello.
        |Later, {h} got lost {p.in}. The {pet} came and showed {h.him} the way home.|{e.Full} was very proud
        of {h}.
        |{h} gave it some food and a name.]
    [A kind act is never too small.|They were friends from that day on.|{h} was glad that {h.he} had stopped
        to help.
        |A little kindness goes a long way.|<alone_end>]
"""

RACE = """
    [Once upon a time, {g.a} and {k.a} lived {home}.|{k.A} and {g.a} lived {home}.
        |Once there was a proud {g} and a quiet {k}.|There was once a proud {g} who met {k.a} {p.in}.
        |Long ago, {g.a} met {k.a} {p.in}.]
    [The {g} was fast, and {g.he} told everyone about it.|"I am the fastest of all," said the {g}.
        |The {g} liked to say, "Nobody is as fast as I am."]
    [The {k} was slow but careful.|"Then let us race," said the {k}.|The {k} only smiled. "Let us race,"
        {k.he} said.]
    [Everyone came to watch.|They ran from the old oak to the river.|The next day, the race began.||]
    [The {g} ran ahead and then lay down to sleep.|The {g} ran so fast that {g.he} took the wrong path.
        |The {g} stopped to pick berries.|Soon the {g} was far ahead, so {g.he} stopped to rest.]
    [The {k} did not stop.|But the {k} went on, step by step.|The {k} walked on and on.]
    [When the {g} looked up, the {k} had won.|In the end, the {k} won the race.
        |The {k} came in first, and everyone cheered.]
    ["You won, and I was foolish," said the {g}.|"I will not boast again," said the {g}.
        |"How did you do it?" asked the {g}. "Step by step," said the {k}.|]
    [Slow and steady wins the race.|It is better to be steady than to be proud.|Pride runs fast and falls
        hard.
        |Those who keep going will get there.]
"""

GREED = """
    [Once upon a time, {g.a} found {food.a} {p.in}.|{g.A} found {food.a} {p.in}.
        |Once there was a greedy {g}. {g.He} had {food.a}.|A hungry {g} was walking {p.in} and found
        {food.a}.
        |One day, {g.a} stole {food.a}.]
    [On the way home, {g.he} came to a river.|{g.He} ran to the river to eat it.|{g.He} carried it to a
        quiet pond.]
    [In the water {g.he} saw another {g} with {food.a}.|{g.He} looked down and saw a {g} in the water with
        {food.a}.]
    ["That {food} is bigger than mine," {g.he} thought.|"I want that one too," said the {g}.
        |"I will have both," said the {g}.]
    [{g.He} jumped at it, and {g.his} own {food} fell into the water.
        |{g.He} opened {g.his} mouth, and the {food} fell into the water.
        |But when {g.he} reached for it, {g.he} dropped {g.his} own.]
    [It was gone.|Now {g.he} had nothing at all.|The other {g} was only in the water.||]
    [{k.A} saw it all.|{k.A} had been watching.]
    ["If you want too much, you may lose what you have," said the {k}.|"Be happy with what you have," said
        the {k}.
        |"Come and eat with me," said the {k}. "But next time, be happy with one."]
    [The {g} never forgot it.|And the {g} went home hungry but wiser.
        |Those who want everything may end with nothing.]
"""

MAKE = """
    [<intro>|<intro> <love>|]
    [<day> {h} wanted to {craft.verb} {craft.a} for {e}.
        |It was {e.own} birthday, and {h} wanted to {craft.verb} {craft.a}.
        |<day> {h} said, "I will {craft.verb} {craft.a} for {e.call}."]
    [But {h.he} needed {part.a}.|{h.He} had everything but {part.a}.
        |{h.He} looked everywhere, but there was no {part}.]
    [{h.He} went to <friend>.|So {h.he} asked <friend>.|Just then, <friend> knocked on the door.]
    ["Do you have {part.a}?" asked {h}.|"I need {part.a}," said {h}.|"May I have {part.a}?" asked {h}.]
    ["Yes, of course," said {f}. "May I help?" |"Of course," said {f}. "Let us do it together."
        |{f} smiled and gave {h.him} one.|"Here you are," said {f}.]
    [They worked all day.|They worked until it was done.|Together they made the {craft}.
        |They laughed and worked all afternoon.||]
    [It was a very good {craft}.|At last, the {craft} was ready.|The {craft} was perfect.||]
    [{e.Full} was so happy.|"This is the best {craft} I have ever seen," said {e}.|{e.Full} gave them both a
        big hug.
        |"You made this for me?" asked {e}.]
    [And they all [sat down|sang|smiled] together.|"{f} helped me," said {h}.|Good work is better with a
        friend.
        |It was a very happy day.]
"""

HONEST = """
    [<intro>|<intro> <love>|]
    [<day> {h} was playing in the house.|<day> {h} played with {t.a} in the house.
        |<day> {h} ran through the house with {t.a}.]
    [Crash! The {frag} fell and broke.|{h.He} hit the {frag}, and it broke.
        |There was a loud crash. The {frag} was broken.]
    [It was {e.own} favorite {frag}.|{h} was afraid to tell {e}.|"Oh no!" said {h}.||]
    [{h.He} wanted to hide it.|{h.He} hid the pieces under the bed.|At first, {h.he} hid the pieces.
        |{h.He} thought, "Nobody will know."||]
    [But {h.he} felt bad inside.|But {h.he} could not eat, and {h.he} could not play.|But it did not feel
        right.]
    [So {h.he} went to {e} and told the truth.|Then {h.he} said, "{e.call}, I broke the {frag}. I am sorry."
        |"I am sorry, {e.call}," {h.he} said. "I broke the {frag}."]
    [{e.Full} gave {h.him} a hug.|{e.Full} was not angry.|{e.Full} looked at {h.him} and smiled.]
    ["Thank you for telling the truth," {e.he} said.|"A {frag} can be mended," {e.he} said. "I am glad you
        told me."]
    [Together they fixed the {frag} with glue.|They cleaned it up together.|{h} felt much better.||]
    [The truth is a light thing to carry.|From that day on, {h} always told the truth.|<alone_end>]
"""

RAIN = """
    [<intro> <love>|<intro>|]
    [<day> {h} and {f.full} wanted to go {p.to}.|{h} and {f.full} wanted to play {p.in}.
        |It was a gray day. {h} and {f.full} were at home.
        |It was a gray day. {f.full} was there, and {h} wanted to go {p.to}.]
    [But it began to rain.|Then the rain came down.|But dark clouds came, and it rained and rained.]
    [{h} looked out of the window and felt sad.|"Now we cannot play," said {h}.|"I do not like the rain,"
        said {h}.||]
    ["Let us play inside," said {f}. They made [a tent out of a blanket|a ship out of a big box].
        |{e.Full} had an idea. They [made a ship out of a big box|sailed paper boats in the puddles].
        |But {f} had an idea. They [sailed paper boats in the puddles|put on their boots and jumped in the
        puddles].
        |"The rain is good for the flowers," said {e}. So they put on their boots and jumped in the
        puddles.]
    [{f} was the captain, and {h} was the pirate.|They told stories and laughed.|They played until the rain
        stopped.
        |It was so much fun!||]
    [Then the sun came out, and there was a rainbow.|When the rain stopped, they saw a rainbow.
        |At last, the sun came out.]
    ["I like the rain after all," said {h}.|"I hope it rains again," said {h}.|"What a good day," said {h}.
        |"Look at all the colors!" said {f}.]
    [<end>|]
"""

NEWFRIEND = """
    [<intro> [{h.He} had no one to play with.|{h.He} was new and did not know anyone.|{h.He} often felt
        alone.]
        |{h} had no one to play with.|{h} was new in town.][<day> {h.he} sat alone {p.in}.
        |<day> {h.he} went {p.to} with {h.his} {t}.]
    [{f.Full2} was there with {t2.a}.|{f.Full2} was sitting {s1} with {t2.a}.]
    [{h} was too shy to speak.|{h} wanted to play, but {h.he} was shy. |At first, they only looked at each
        other.||]
    [Then {f} said, "Hello! I am {f}. Do you want to play with me?"
        |Then {h} said, "Hello! My name is {h}. May I play with you?"
        |Then {f} smiled. "Do you want to play with me?" asked {f}.|{f} smiled. "May I play with you?" asked
        {h}.]
    ["Yes, please!" was the answer.|"Yes, I would like that."|"I was hoping you would ask."]
    [They played with the {t2} all afternoon.|They ran and jumped and laughed.|They built a house {s2}.
        |They played hide and seek, and {h} hid {s3}.]
    ["Will you come back tomorrow?" asked {h}. "Of course," said {f}.|The next day, they met again.
        |When it got dark, they walked home together.||]
    [{h} was not alone anymore.|Sometimes one hello is enough.|They were friends from that day on.|<end>]
"""

GARDEN = """
    [<intro>|<intro> <love>|]
    [<day> {h} got a tiny seed from {e}.|<day> {h} found a tiny seed {p.in}.|<day> {h} planted a small
        seed.]
    ["What will it be?" asked {h}. "Wait and see," said {e}.|"Plant it and wait," said {e}.|{h.He} put it in
        a pot.|]
    [Every day, {h} gave it water.|Every morning, {h} looked at the pot.|{h} gave it water and sun every
        day.]
    [But nothing happened.|Days went by, and nothing grew.|One week went by. Nothing grew.]
    ["It will never grow," said {h}. "Good things take time," said {e}.
        |{h} wanted to give up. "Be patient," said {e}. |But {h} did not give up.|"Maybe it is asleep," said
        {h}.]
    [Then, one morning, there was a little green leaf.|One day, a tiny leaf came up.
        |At last, something green came out of the ground.]
    [It grew and grew.|It grew taller every day.||]
    [Soon it was a big, beautiful {plant}.|And one day, it was {plant.a}.
        |In the end, it was the best {plant} in the village.]
    [{h} was very proud.|"Look!" said {h}. "I grew it!"|{h} gave some of its seeds to {f.full}.
        |Good things come to those who wait. |Who waits with care will see things grow.]
"""

CHEST = """
    [{h} found {key.a} {p.in}.|<intro> <day> {h.he} found {key.a} {p.in}.
        |<day> {h} was playing {p.in} and found {key.a}.|<day> {h} found {key.a} {s1}.]
    [{h.He} showed it to <friend>.|"Look what I found!" said {h} to {f.full}. |"What is it for?" asked
        {f.full}.]
    [They looked for a long time.|"Let us find out," said {f}.|"Maybe there is a treasure," said {f}.
        |They looked {s2}, but there was nothing there.||]
    [At last, they found an old box {s3}.|Then they saw an old box {s3}.|{s3.Cap}, there was a small box.]
    [The box was locked, but the key fit.|Slowly, they opened it.|They opened it together.|"Open it!" said
        {f}.]
    [Inside was {gold}.|In the box there was {gold}.]
    ["It is beautiful," said {h}.|"How wonderful!" said {f}.|They could not believe their eyes.|||]
    [They {gold.do}.|They took it home and {gold.do}. |{h} and {f} {gold.do}.]
    [<end>|"But the best treasure is a friend," said {h}.|A treasure is better when it is shared.]
"""

LEARN = """
    [<intro> {h.He} wanted to learn to {skill}.|<intro> More than anything, {h.he} wanted to {skill}.
        |<intro> {h.He} could not {skill}, and it made {h.him} sad.|{H} wanted to learn to {skill}.
        |{H} could not {skill}.]
    [<day> {h.he} tried, but it did not go well.|{h.He} tried and tried, but {h.he} could not do it.
        |The first time, it went all wrong.]
    ["I will never learn," said {h}.|"It is too hard," said {h}.|{h} wanted to give up.||]
    [<friend> laughed, but not in a mean way.|Then <friend> sat down next to {h.him}.|<friend> saw it and
        came over.]
    ["Nobody can do it the first time," said {f}.|"Try again," said {f}. "I will help you."
        |"I fell many times too," said {f}. |"A little every day," said {f}. "That is the secret."]
    [So {h} tried again.|Every day, {h} tried again.|{h} tried again the next day, and the next.]
    [Then, one morning, {h} {skill.did}.|At last, {h.he} {skill.did}.|And one day, {h} {skill.did}.]
    ["I can do it!" {h.he} said.|"Look at me!" said {h}.|"You did it!" said {f}.||]
    [Try, and try again.|Nobody is born knowing how.|<alone_end>|{f} was as happy as {h}.|]
"""

SLEEP = """
    [<intro>|It was late, and the moon was in the sky.|It was night.]
    [{h} could not sleep.|{h} lay in bed, but {h.he} could not sleep.|{h} was not tired at all.]
    [{h.He} turned to the left and to the right.|{h.He} counted sheep, but it did not help.
        |{h.He} looked at the moon.||]
    ["{e.call}, I cannot sleep," {h.he} said.|{h.He} called {e}.|{e.Full} came in and sat on the bed.]
    ["Shall I tell you a story?" asked {e}.|"Close your eyes and think of something nice," said {e}.
        |"Then let us look at the stars," said {e}.]
    [{e.He} told about {k.a} who lived on the moon.|{e.He} told a story about {k.a} and {g.a}.
        |{h} thought of {k.a} that slept in a boat.]
    [The {k} was tired after a long day.|In the story, the {k} was sleepy too.|The {k} had a soft bed made
        of clouds.]
    [Slowly, {h} closed {h.his} eyes.|{h} smiled and hugged {h.his} {t}.|{h.His} eyes got heavy.||]
    ["Good night, {h}," said {e}.|"Good night, {e.call}," {h} said.]
    [And then {h.he} was asleep.|Soon {h.he} was fast asleep.|The moon looked in at the window and was very
        quiet.]
"""

WISDOM = """
    [<intro> {h.He} was always in a hurry.|<intro> {h.He} always wanted more.
        |<intro> {h.He} did not like{h.his} [big ears|small feet|loud voice].
        |<intro> {h.He} wanted to be the strongest of all.]
    [<day> {h.he} went to the wise old owl.|<day> {h.he} climbed the hill to ask the old owl.
        |So {h.he} asked the old owl for help.]
    ["How can I be happy?" asked {h}.|"What should I do?" asked {h}.|"Tell me your secret," said {h}.]
    [The owl thought for a long time.|The owl opened one eye.|"Sit down," said the owl.||]
    ["Go and help someone," said the owl. "Then come back."|"Look around you," said the owl. "What do you
        see?"
        |"Be good to others, and you will see," said the owl.]
    [On the way home, {h} met {f.full}.|Then {h} saw {f.full} {p.in}.]
    [{f} could not carry {f.his} {t} alone.|{f} had lost {f.his} {t}.|{f} was sad because {f.his} {t} was
        gone.]
    [{h} stopped and helped.|{h} helped {f.him} until it was dark.|"Let me help," said {h}.]
    ["Thank you," said {f}. "You are a good friend."|"I am glad you came," said {f}.||]
    [And all at once, {h} felt happy.|Now {h} knew what the owl meant. |{h} smiled all the way home.]
    [Help others, and you help yourself.|The wise owl only smiled.|What you give comes back to you.]
"""

STUCK = """
    [<intro>|<intro> <love>|]
    <day> {h} [played with {t.a} {p.in}|took {h.his} {t} {p.to}|went {p.to} with {t.a}].
    [The wind took it and put it in a tree.|The wind blew it up into a tree.|It flew up and got stuck in a
        tall tree.]
    ["Oh no!" said {h}. "My {t.n} is gone."|<cry>|{h} jumped, but {h.he} could not reach it.]
    [{f.Full} came to help.|{f.Full} wanted to help.|Then {f.full} came by.]
    [{f} shook the tree, but the {t.n} did not fall.|{f} jumped too, but the tree was too tall.||]
    ["Let us ask for help," said {f}.|"I have an idea," said {h}.|"We must work together," said {f}.||]
    [{h} stood on a box, and {f} held it.|{f} climbed up, and {h} held the ladder.
        |They found a long stick and pushed. |They called {e}, who had a ladder.]
    [At last, the {t.n} came down.|Down came the {t.n}!|The {t.n} fell right into {h.his} hands.]
    [<thanks>|"We did it!" they said.|They cheered and laughed.]
    [<end>|What one cannot do, two can.|Two heads are better than one.]
"""

QUARREL = """
    [{h} and {f} were best friends.|<intro> {h.His} best friend was {f}.|{h} and {f} lived {home}.]
    <day> they [found {t.a} {p.in}|saw {t.a} {s1}|went {p.to} and found {t.a}].
    ["It is mine!" said {h}. "No, it is mine!" said {f}.|Both of them wanted it.|"I saw it first!" said {h}.
        |They both wanted to play with it.]
    [They pulled and pulled.|They were very angry.|They did not talk to each other all day.||]
    [Then the {t.n} fell into the mud.|Then it started to rain.|Then {h} felt sad and alone.
        |{f} went home and was sad.]
    ["I am sorry," said {h}. "I am sorry too," said {f}. "Let us take turns."
        |"I am sorry," said {f}. "You can have it." "No, let us take turns," said {h}.
        |"I do not want to fight," said {h}. "We can play with it together," said {f}.]
    [So they took turns.|So they played with the {t.n} together.|They cleaned the {t.n} and played
        together.]
    [It was much more fun that way.|Two can have more fun than one.|A friend is better than any
        {t.n}.|<end>]
"""

GIFT = """
    [<intro> It was {h.his} birthday.|It was {h.own} birthday.|<intro> It was almost {h.his} birthday.]
    {h} [hoped for|wanted|had asked for] {t.a}.
    [In the morning, there was a box by {h.his} bed.|{e.Full} gave {h.him} a big box.
        |All of {h.his} friends came. {f.Full} had a box.]
    [{h} opened it with care.|{h} could not wait to open it.|"What is it?" asked {h}.||]
    [Inside was not {t.a}, but {t2.a}.|It was {t2.a}.|It was not {t.a}. It was {t2.a}.]
    [At first, {h} was a little sad. |{h} did not know what to say.|"Oh," said {h}.]
    [Then {f.full} said, "I made it just for you."|Then {e} said, "I made it for you."
        |Then {f.full} said, "Come and play with me."]
    [{h} looked at the {t2.n} again.|{h} held it close.|They took the {t2.n} outside.||]
    [It was the best {t2.n} in the world.|Now {h.he} liked it very much.|It was made with love.]
    ["Thank you," {h.he} said.|"This is the best gift of all," {h.he} said.]
    [<alone_end>|A gift is as big as the love in it.]
"""

# The plot and its weight.
PLOTS = (
    ("lost", LOST, 3), ("share", SHARE, 2), ("fear", FEAR, 2), ("rescue", RESCUE, 3), ("race", RACE, 1),
    ("greed", GREED, 1), ("make", MAKE, 2), ("honest", HONEST, 2), ("rain", RAIN, 2), ("newfriend", NEWFRIEND, 2),
    ("garden", GARDEN, 2), ("chest", CHEST, 2), ("learn", LEARN, 2), ("sleep", SLEEP, 1), ("wisdom", WISDOM, 1),
    ("stuck", STUCK, 2), ("quarrel", QUARREL, 2), ("gift", GIFT, 2),
)  # fmt: skip
