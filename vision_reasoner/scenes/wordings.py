"""Requests about an image, as data: word lists, phrases, and the grammar that `instructions` samples from.

A line "= name" starts a rule; every line below it is an alternative, or several separated by "|". In an alternative,
`{name}` refers to another rule or list, `(a|b)` is a choice and `[a]` is optional. The rule without a name is the start
symbol. An alternative that is listed twice is twice as likely.
"""

# ruff: noqa: E501  (one alternative is one line, however long)

from vision_reasoner.models.router import COUNTING, EDITING, OBJECTS, QUESTION

# --- words: an underscore joins two, a slash gives a plural that is not made with -s
PEOPLE = """
    man/men woman/women boy girl child/children kid baby/babies toddler teenager person/people guy lady/ladies gentleman/gentlemen
    player skier surfer skateboarder cyclist runner swimmer climber driver pilot sailor passenger pedestrian tourist traveller
    teacher student doctor nurse dentist patient chef waiter waitress baker farmer gardener fisherman/fishermen soldier
    policeman/policemen firefighter worker builder mechanic carpenter painter artist musician singer guitarist drummer dancer
    actor photographer journalist scientist engineer lawyer judge king queen prince princess knight pirate clown magician
    bride groom mother father grandmother grandfather sister brother uncle neighbour friend couple crowd goalkeeper referee
    coach fan audience guest customer cashier shopper vendor salesman/salesmen monk priest guard lifeguard thief/thieves hero
"""
ANIMALS = """
    dog puppy/puppies cat kitten horse pony/ponies donkey cow calf/calves bull sheep/sheep lamb goat pig piglet chicken rooster hen duck goose/geese
    swan turkey peacock parrot pigeon seagull eagle hawk owl crow robin sparrow flamingo ostrich penguin bat mouse/mice rat
    squirrel hamster rabbit hedgehog fox/foxes wolf/wolves bear panda koala kangaroo lion tiger leopard cheetah elephant rhino
    hippo giraffe zebra camel llama deer/deer moose/moose antelope buffalo monkey gorilla chimpanzee snake lizard crocodile
    turtle frog toad fish/fish shark whale dolphin seal otter octopus/octopuses squid crab lobster shrimp/shrimp jellyfish/jellyfish starfish/starfish
    butterfly/butterflies moth bee wasp ant spider beetle ladybug dragonfly/dragonflies fly/flies mosquito/mosquitoes grasshopper snail worm caterpillar
    animal bird insect pet creature dinosaur dragon unicorn
"""
THINGS = """
    apple banana orange lemon lime pear peach plum cherry/cherries strawberry/strawberries blueberry/blueberries raspberry/raspberries mango pineapple watermelon
    melon kiwi coconut avocado tomato/tomatoes potato/potatoes carrot onion garlic pepper cucumber pumpkin mushroom bean olive nut
    sandwich/sandwiches burger pizza hot_dog taco burrito noodle dumpling pancake waffle croissant bagel muffin donut cookie cake pie
    cupcake candy/candies chocolate_bar lollipop ice_cream egg sausage steak salad soup bread/bread cheese/cheese slice meal dessert snack drink
    fruit vegetable cup mug glass/glasses wine_glass/wine_glasses bottle can jar jug pitcher teapot kettle pot pan frying_pan plate dish/dishes bowl tray
    spoon fork knife/knives chopstick spatula ladle whisk grater peeler corkscrew bottle_opener cutting_board napkin straw
    fridge oven stove microwave toaster blender dishwasher sink faucet tap washing_machine iron vacuum_cleaner hair_dryer
    table desk chair stool bench/benches armchair sofa couch/couches bed pillow blanket mattress/mattresses wardrobe closet shelf/shelves bookshelf/bookshelves drawer
    cabinet mirror lamp lamp_shade chandelier candle curtain carpet rug cushion vase picture_frame painting poster clock alarm_clock
    door window doorknob key lock staircase stair step ladder handrail fireplace ceiling_fan radiator heater light_switch socket
    bathtub shower toilet towel soap sponge toothbrush/toothbrushes comb hairbrush/hairbrushes razor bucket mop broom trash_can recycling_bin
    car taxi van bus/buses truck pickup_truck fire_truck ambulance police_car motorcycle scooter bicycle bike tricycle skateboard
    tram train subway locomotive wagon tractor bulldozer crane forklift airplane plane jet helicopter hot_air_balloon drone rocket
    boat ship sailboat canoe kayak ferry/ferries yacht submarine anchor wheel tire steering_wheel windshield headlight bumper license_plate
    seat_belt handlebar pedal engine traffic_light stop_sign street_sign road_sign billboard crosswalk street_lamp parking_meter
    fire_hydrant mailbox/mailboxes bus_stop bridge tunnel tower lighthouse/lighthouses castle church/churches temple mosque skyscraper building house cottage
    hut barn garage tent shop store restaurant cafe hotel hospital school factory/factories windmill fence gate wall roof chimney balcony/balconies
    brick tile pillar statue fountain flag tree palm_tree pine_tree bush/bushes flower rose tulip sunflower leaf/leaves branch/branches trunk cactus/cacti
    plant potted_plant mountain hill rock stone river lake pond waterfall island cloud wave puddle path trail road
    shirt t-shirt blouse sweater hoodie jacket coat raincoat dress/dresses skirt suit uniform apron jeans/jeans pants/pants
    shorts/shorts sock shoe sneaker boot sandal slipper high_heel hat cap helmet crown scarf/scarves glove mitten belt tie bow_tie
    glasses/glasses sunglasses/sunglasses watch/watches bracelet necklace ring earring handbag purse wallet backpack suitcase bag basket box/boxes crate barrel
    umbrella cane wheelchair stroller mask badge button zipper pocket collar sleeve hood logo stripe
    phone cell_phone smartphone tablet laptop computer monitor screen keyboard mouse_pad printer scanner camera tripod lens/lenses
    microphone speaker headphone earbud radio tv television remote remote_control game_console controller joystick charger cable plug battery/batteries
    light_bulb flashlight lantern robot router usb_stick calculator telescope microscope thermometer compass/compasses scale
    book notebook magazine newspaper letter envelope stamp postcard card paper document folder binder pen pencil crayon marker
    eraser ruler stapler paper_clip scissors/scissors glue_stick tape pushpin whiteboard blackboard globe map calendar diary/diaries receipt ticket menu
    hammer saw screwdriver wrench/wrenches pliers/pliers drill axe shovel rake hoe nail screw bolt hinge rope chain hose wheelbarrow
    paintbrush/paintbrushes toolbox/toolboxes watering_can lawn_mower ladder fire_extinguisher first_aid_kit bandage pill syringe stethoscope
    ball football basketball soccer_ball baseball tennis_ball golf_ball bowling_ball baseball_bat racket net goal hoop frisbee kite
    surfboard snowboard ski ski_pole sled ice_skate dumbbell yoga_mat jump_rope trampoline swing slide seesaw sandcastle trophy/trophies medal
    toy doll teddy_bear puppet puzzle_piece lego_brick dice/dice chess_piece playing_card balloon gift present ornament ribbon firework
    guitar piano violin cello drum trumpet flute saxophone harp accordion xylophone whistle bell
    coin banknote jewel diamond pearl shell feather bone skull egg_carton cardboard_box/cardboard_boxes cage nest web sculpture sign label sticker
    barcode arrow number letter word circle triangle square line dot bar column row symbol icon shadow reflection object item thing
"""
STUFF = """
    water snow ice sand grass sky sea ocean smoke fire dust mud rain fog steam hair fur skin wood metal glass paper plastic
    milk coffee tea juice wine beer butter rice pasta sugar salt flour bread meat cheese sauce furniture luggage traffic foliage vegetation
    clothing jewellery money rubbish garbage trash litter laundry graffiti text writing handwriting paint light sunlight sea_foam road_surface
    background foreground floor ceiling ground pavement sidewalk lawn street beach horizon scenery skyline
"""
PARTS = """
    head face hair eye ear nose mouth tooth/teeth tongue neck shoulder arm elbow hand finger thumb leg knee foot/feet toe tail wing beak paw claw
    horn trunk mane back chest belly beard moustache eyebrow lip handle lid edge corner top bottom side front rear tip end surface cover page
    screen wheel door window roof blade button strap lace heel stem petal root seed peel crust spout antenna propeller mast sail
"""
ADJECTIVES = """
    big large huge giant small little tiny tall short long wide narrow thick thin round square flat pointed curved straight old
    new young ancient modern antique rusty dirty clean shiny dusty wet dry broken cracked damaged torn worn empty full open closed
    wooden metal plastic glass paper leather woollen cotton stone concrete golden silver bright dark pale colourful transparent
    striped spotted checkered plain fluffy furry hairy bald smooth rough soft hard heavy light hot cold frozen melted warm fresh
    ripe rotten raw cooked sliced grilled sweet sour spicy happy sad angry scared surprised tired sleepy hungry friendly scary
    funny cute ugly beautiful fancy strange unusual famous expensive cheap electric inflatable folding portable vintage parked
    moving flying running sleeping standing sitting smiling crying swimming jumping lonely crowded hidden visible blurry nearest
    closest farthest leftmost rightmost topmost upper lower left right middle central front back first second third last other
    same different whole double barefoot bearded blonde elderly pregnant injured dead alive wild safe dangerous fast slow loud
"""
COLORS = """
    red orange yellow green blue purple pink white black brown grey gray golden silver beige turquoise teal navy maroon violet
    cyan magenta cream dark_blue light_green bright_red pale_yellow lime_green sky_blue
"""
SUPERLATIVES = """
    largest biggest smallest tiniest tallest shortest longest widest thickest thinnest highest lowest nearest closest farthest
    furthest oldest youngest newest brightest darkest heaviest lightest fastest slowest cleanest dirtiest fullest emptiest
    ripest prettiest strangest
"""
# what someone or something is doing: alone, and with an object
ACTS = """
    running walking jumping sitting standing lying sleeping swimming flying smiling laughing crying waving dancing singing talking
    shouting waiting resting eating drinking cooking reading writing drawing working playing skiing surfing skating cycling
    climbing falling floating diving kneeling crouching stretching yawning barking grazing hunting hiding burning melting
    bending posing cheering praying shopping fishing camping sunbathing begging leaning dripping glowing hanging spinning
"""
DEEDS = """
    holding carrying wearing eating drinking reading watching pushing pulling throwing catching kicking hitting riding driving
    feeding washing cleaning painting cutting opening closing touching hugging kissing chasing following leading lifting
    dragging pouring selling buying making building fixing repairing photographing counting removing changing using pointing_at
    looking_at sitting_on standing_on leaning_on lying_under hiding_behind walking_past climbing_over jumping_over playing_with
    talking_to waiting_for covered_with filled_with made_of surrounded_by attached_to facing touching blocking casting
"""
# what things are for: as infinitives, with whatever they are done to
NEEDS = """
    open a bottle|open this can|open the door|unlock the gate|cut bread|slice the meat|chop wood|cut my hair|peel potatoes|eat soup
    drink water|stir the coffee|boil water|fry an egg|bake a cake|heat up the soup|keep food cold|keep the milk fresh|keep warm
    stay warm in winter|stay dry|stay cool in summer|protect my eyes from the sun|protect my head|protect the hands|avoid a sunburn
    sit down|lie down and rest|take a nap|sleep at night|rest my feet|write a letter|take notes|draw a picture|erase a mistake
    send a message|call a friend|take a picture|record a video|listen to music|play a song|watch a film|pass the time|tell the time
    wake up early|measure the length|weigh the flour|check the temperature|find the way|travel to another city|cross the river
    get to work|go up to the second floor|carry water|carry the groceries|transport heavy goods|store clothes|hold flowers
    hang up a coat|tie the package|wrap a present|glue the pieces together|fix a leaking pipe|tighten a screw|drive in a nail
    paint the wall|dig a hole|water the plants|mow the lawn|sweep up crumbs|wash the dishes|wash my hands|dry my hair|dry off
    iron a shirt|sew on a button|brush my teeth|comb my hair|shave|clean the windows|wipe the table|vacuum the carpet
    throw away rubbish|light the room|see in the dark|start a fire|put out the flames|stop the bleeding|treat a wound|take medicine
    help an injured person|walk with a broken leg|feed the baby|calm a crying child|walk the dog|feed the cat|catch fish|scare away birds
    pay for the meal|buy a ticket|lock the bike|charge my phone|type a text|print a page|browse the internet|do the maths
    learn to read|study the stars|look at something far away|play tennis|score a goal|slide down the hill|ride on the waves|fly in the sky
    celebrate a birthday|decorate the tree|dress up for a wedding|look taller|stand higher|reach the top shelf|climb the wall
    cool the room|block the sunlight|get some privacy|stop the cars|warn other drivers|control the speed|steer the boat|slow down
    remove a stain|remove a nail|change a tire|replace the bulb|add salt|make a call|make coffee|turn off the light|sharpen a pencil
    enter the building|leave the house|go outside in the rain|travel by sea|relax after work|have fun|survive in the desert
"""
USES = """
    opens a bottle|keeps food cold|keeps you warm|keeps the sun out|protects the head|protects against rain|gives light|gives milk
    makes music|makes noise|makes coffee|shows the time|shows the way|measures time|cuts wood|cleans the carpet|carries passengers
    carries goods|holds water|holds the flowers|stores energy|produces honey|lays eggs|lives in the forest|eats grass|flies at night
    swims in the sea|grows on trees|runs on electricity|runs on batteries|needs petrol|contains sugar|tastes sour|smells good
    can be eaten|can be eaten raw|can be drunk|can be worn|can be opened|can be recycled|can fly|can swim|can bite|can hold hot tea
    is good for the teeth|is used to cook|is used for writing|is needed for a picnic|is dangerous for children|is made of glass|belongs in the kitchen
    does not belong here|stops the traffic|controls the car|helps people walk|helps him see better|lets the light in|lets you fly
    supports the roof|connects the two sides|blows hot air|protects the knees|reflects the light|heats the room|keeps the door shut
"""
PLACES = """
    on the table|on the left|on the right|on the far left|on the right side|at the top|at the bottom|in the middle|in the centre
    in the background|in the foreground|in the corner|in the back|in front|on the ground|on the floor|on the wall|on the shelf
    on the street|on the road|on the beach|on the grass|on the roof|on the counter|on the plate|on the bed|on the sofa|on the bench
    in the water|in the sky|in the air|in the tree|in the kitchen|in the garden|in the park|in the room|in the box|in the basket
    in the bowl|in the car|in the snow|in the distance|in the crowd|in the first row|in the shop window|at the door|at the table|at the station
    near the window|near the door|by the river|by the road|under the table|under the tree|under the bridge|behind the house|behind the fence
    next to the door|in front of the building|above the sink|across the street|along the path|inside the house|outside|upstairs|nearby|there
"""
SCENES = """
    image|picture|photo|photograph|scene|image|picture|photo|pic|img|shot|snapshot|screenshot|drawing|painting|frame
"""
STYLES = """
    watercolor|watercolour painting|oil painting|pencil drawing|pencil sketch|charcoal drawing|cartoon|comic|anime|manga|pixel art|line drawing
    mosaic|stained glass window|old photograph|polaroid|postcard|poster|painting by Monet|pop art print|3D render|clay figure
    lego set|origami|vintage photo|film still|black and white photo|sepia print|silhouette|child's drawing|fresco|tattoo|neon sign
"""
QUALITIES = """
    brightness contrast saturation exposure sharpness lighting colours temperature noise resolution hue shadows highlights tone size focus
    vividness glare grain white_balance perspective aspect_ratio
"""
LOOKS = """
    brighter darker bigger smaller larger taller shorter longer wider thinner younger older happier sadder sharper clearer blurrier
    warmer colder greener bluer redder cleaner dirtier softer smoother shinier more_colourful more_dramatic more_realistic
    less_saturated less_bright transparent black_and_white red blue green pink golden wet snowy sunny cloudy foggy blurry round fluffy
    curly bald blonde smile laugh disappear stand_up sit_down look_angry look_happy look_old look_like_a_painting glow fly
"""
ATTRIBUTES = """
    colour color size shape name brand make model type kind breed species age gender material pattern texture price cost
    weight height length width title purpose function meaning message mood emotion expression style year date time address
    number phone_number license_plate_number speed temperature score result total_price logo slogan author owner nationality job
    occupation profession main_subject topic weather season language font position condition flavour ingredient relationship
"""
VERBS = """
    use take make move open close break build carry catch change charge check choose clean climb connect control cook cool count
    cover cross cut decorate deliver dig draw drink drive dry eat enter feed fill find fix fly fold follow get give grab grow hang
    heat help hide hit hold join jump keep kick lean learn leave lift light listen live load lock look mean measure mix need open
    pack paint park pay pick play plant point pour press print produce protect pull push put reach read receive record remove
    repair replace rest ride ring roll run save scare see sell send separate serve shine show sing sit sleep slide smell sort speak
    spend stand start steal stop store support swim swing talk taste teach throw tie touch train travel turn unlock visit wait wake
    walk warm warn wash watch water wear weigh win wipe work wrap write
"""
ADVERBS = """
    here there now today again already still often never usually quickly slowly carefully alone together outside inside nearby
    upside_down well badly illegally automatically easily safely quietly loudly happily angrily at_night in_winter in_summer
    every_day at_home at_work at_school by_hand for_free in_the_morning on_weekends after_dinner before_lunch on_time too_fast
    by_accident in_public without_help from_above in_the_rain all_the_time the_most the_best last right_now almost twice
"""
PREPOSITIONS = """
    in on at under behind with without for from near over above below between across into through by against along around beside
    inside outside towards past off onto before after about during like next_to in_front_of on_top_of close_to away_from out_of
"""
DONE = """
    painted built eaten broken used made worn driven parked sold bought written printed drawn taken shown played cooked cleaned
    cut opened closed locked lost hidden stolen damaged repaired covered filled decorated attached connected folded hung thrown
    carried pulled pushed lit burnt frozen melted delivered protected planted grown caught fed trained measured folded replaced
    removed chosen signed addressed mentioned allowed needed invented
"""
NAMES = """
    van_gogh picasso monet rembrandt dali warhol disney pixar ghibli tim_burton banksy cyberpunk steampunk art_deco minecraft
    paris london tokyo new_york rome venice hawaii mars anna tom maria max lisa santa batman superman mickey_mouse google
    nike coca-cola toyota samsung christmas halloween easter monday 1990 2015 2020 sale stop hello welcome open happy_birthday
"""
NUMBERS = "two three four five six seven eight nine ten 2 3 4 5 6 7 8 10 12 20".split()
ORDINALS = "first second third fourth fifth last 1st 2nd 3rd next".split()

# --- rules: what all requests share, and each category's own
PHRASES = """
= modal
can|could|will|would|should|must|may|might
= aux
is|are|was|were
= does
do|does|did|do|does|did|{modal}
= deed_phrase
{verb}|{verb} {adverb}|{verb} {np}|{verb} {np}|{verb} {np} {adverb}|{verb} {preposition} {np}|{verb} {np} {preposition} {np}
{need}|be {adj}|be {done}|be {doing}|have {np}|be {preposition} {np}
= is_phrase
is {adj}|is {doing}|is {done} {adverb}|is {adverb} {done}|was {done} {preposition} {np}|is {preposition} {np}|is being {done}
has {np}|has {things}|has {adverb} {done} {np}|seems {adj}|looks {adj}|looks like {np}|appears {adj}
(appears|seems|wants|has|needs|tends|is about|is going|is trying|happens|is supposed) to {deed_phrase}
(appears|seems) to (have|be) {done} [{np}]
{verbs} {np}|{verbs} {adverb}|{verbs} {preposition} {np}|{verbs} {things}|{modal} {deed_phrase}|does not {deed_phrase}
= clause
{np} {is_phrase}|{np} {is_phrase}|people {verb} {np}|you {modal} {deed_phrase}|someone {is_phrase}|we {verb} {things}
= the
the|the|the|the|this|that|my|his|her|their|our|one of the
= which
{adj} {thing}|{thing}|{thing}|{thing} {after}|{adj} {thing} {after}|{color} {thing}|{color} {thing} {after}
= np
the (place|spot|area|part|region|side|room|moment|area|surface|corner) (where|in which|on which) {clause}
the (person|man|woman|animal|one|thing|object|part|team|vehicle|building|group|food|player|item) (who|that|which) {is_phrase}
the {thing} (that|which) {is_phrase}|the {thing} {preposition} {np}|the {adj} {thing} {preposition} {np}|{person}'s {thing}
the {which}|the {which}|the {which}|a {which}|{the} {which}|{the} {thing}|the {thing}|a {thing}
the {superlative} {thing}|the {superlative} of the {things}
the {person}('s|s) {thing}
the {part} of the {which}
the {ordinal} {thing} from the (left|right|top|bottom|front|back)
the {adj} one|the {stuff}|the {color} {stuff}
everyone (else|{doing}|{place})
everything (else|{place}|that is {adj})
the {thing} {done} by {np}
the {thing} (that |){np} is {deed}
the {thing} whose {part} is {adj}
the {thing} (called|named|labelled|that says|with the word|with the name|with the text) ({name}|"{name}"|'{name}')
{pronoun}|any {thing}|any {which}
= nps
any {things}|the {things}|all {things}|all the {things}|all of the {adj} {things}|the {number} {things}
the {things} {after}|all {adj} {things}|every {which}|each {thing}|{things}|{color} {things}|{adj} {things} {after}
the {things} and the {things}|{things} and {things}
(both|these|those) {things}
= obj
{np}|{np}|{nps}
= doing
{act}|{act} {place}
{deed} (a|the) {thing}
{deed} {things}
{deed} (a|the) {adj} {thing}
in a {adj} {thing}|in {color}|in the {color} {thing}
with (a|the) {thing}
with {adj} {part}
without (a|any) {thing}
= after
(that|who|which) {is_phrase}
{preposition} {np}|{preposition} the {thing}|{preposition} a {thing}|{preposition} his {part}|with {parts} {done}|{act} {adverb}
{place}|{doing}|{doing}|{doing} {place}
(on|in|under|behind|above|below|beside|near|inside|over|next to|in front of|to the left of|to the right of|left of|between the {things} and|around|against|opposite|far from|closest to|of) (the|a|his|her) {thing}
(that|which) is {adj}
(being|that was|which has been|just) {done} [by (a|the) {thing}]
(that|who|which) is (about|going|ready|trying|able|likely|supposed) to {verb} [(a|the|) {thing}]
(that|who|which) {verbs} (a|the|his|) {thing}
(that|who|which) (can|could|will|might|did not|does not|has to) {verb} (a|the|) {thing}
(that|which) (is|are) {doing}
(that|who) (is|are) {doing}
(that|which) {use}
who (wears|holds|has|carries|needs) (a|the) {thing}
= tail
in (the|this) {scene}
in (the|this) {scene}
here|please|for me|thanks|, please|{place}
in (the|this) {scene} please
(shown|visible|that you see|present) in (the|this) {scene}
= open
please|please|can you|can you please|could you|could you please|would you|would you mind to|i want you to
i need you to
i'd like you to
i would like you to|hey,|hi, please|hello! can you|kindly|just|now|ok, now|next,|go ahead and|help me|help me to
let's
try to|you should|your task is to|the task:|quickly|first
= context
i took this {scene} {place}.
this is a {scene} of (a|my|the) {which}.
here is a {scene} of {things}.
look at (this|the) {scene}.
look at {obj} {place}.
in (this|the) {scene},
in (this|the) {scene} there are {things}.
there is {np} {after}.|i am looking at a {scene} of {obj}.
(the|my) {person} {place} is {doing}.
for my (report|project|homework|research|website|shop|blog),
hi!|hello,|hey there,|quick question:|question:|task:|instruction:|i have a {scene} here.
consider (this|the) {scene}.
sorry to bother you, but|as you can see,
given (this|the) {scene},
based on (this|the) {scene},
i've got (a|one more|another) (request|question):
"""

REQUESTS = {
    OBJECTS: """
=
{bare}|{bare}|{bare}|{bare}
{seg} (what|the thing|the one|whatever) {np} is {deed}|{seg} where {clause}
{seg} (what|whatever|whoever|everything that|everyone who|anything that|all that|anyone who) {is_phrase}
(when|if|while|before|after|because|as|since) {clause}, what ([in (this|the) {scene}] {modal}|{modal} (i|you|we) use to|helps to|lets us|would help to) {deed_phrase}
(what|which {thing}) (here|in the {scene}|in this {scene}|{place}|on the {thing}|of all these things|among these) {modal} (be used|be useful|serve|be worn|be eaten|help|work) (to|as|for|like) ({need}|a {thing}|{verb}ing {np})
{seg} {obj}|{seg} {obj}
{seg} {obj} [{tail}]
[{open}] {seg} {obj} [{tail}]
{open} {seg} {obj} [{tail}]
[{open}] {seg} {thing_for} [{tail}]
[{open}] {box} [{tail}]
[{open}] {mask} [{tail}]
{where} [{tail}]
{bare}|{bare}|{bare}|{thing_for}|{which_for}
{which_for} [{tail}]
{need_first}|{looking}
= seg
segment|segment|segment out|find|find|find me|locate|detect|show|show me|show me where i can find|point to|point at
point out|mark|highlight|outline|select|select only|pick out|pick|choose|spot|isolate|extract|extract the mask of|mask
mask out|trace|trace the outline of|trace around|delineate|identify and segment|identify the location of|find and mark
find and segment|detect and segment|localize|localise|track down|look for|search for|search the {scene} for|seek
cut out|separate|single out|pinpoint|circle|indicate|label the pixels of|run segmentation on
perform instance segmentation of|perform object detection for|get|get the pixels of|get the region of
tell me the location of|tell me the position of|tell me where to find|find the exact outline of
find the pixels that belong to|find the area covered by|discover|figure out where to find|draw the contour of
draw the outline of
= box
(all|every|any) (instance|instances|occurrence|occurrences) of {thing}
(draw|put|place|make|add) (a|the|one|tight) (box|bounding box|rectangle|bbox|red box|frame) (around|on|over|for|round) {obj}
(draw|put|place|add) (boxes|bounding boxes|rectangles|bboxes) (around|on|over|for) {nps}
(give|return|show|tell|send|report|output|provide|predict|list|get|print) [me] (the|a|all|its) (box|bounding box|bbox|boxes|bounding boxes|coordinates|box coordinates|location|position|locations|positions) (of|for|around) {obj}
(locate|mark|find|enclose|frame|surround|annotate|detect|localize) {obj} (with|by|using|in) (a|the) (box|bounding box|rectangle|frame)
(locate|mark|find|enclose|frame|annotate|detect) {nps} (with|by|using|in) (boxes|bounding boxes|rectangles)
(bounding box|bbox|box|boxes|coordinates|location|bounding boxes) (of|for|around) {obj}
i need (a|the) (box|bounding box|bbox|coordinates) (of|for|around) {obj}
= mask
(give|return|show|send|output|provide|create|produce|make|draw|generate|predict|compute|get) [me] (a|the) [binary|pixel|segmentation|instance|precise] (mask|masks|segmentation|outline|silhouette|contour) (of|for|covering) {obj}
(mask|segmentation|segmentation mask|outline|silhouette|masks) (of|for) {obj}
(separate|isolate|segment|distinguish|split) {obj} from (the background|the rest|{obj}|everything else)
(mark|select|highlight|find|label|colour) (all|every|the) (pixels|pixel|area|areas|regions) (of|that belong to|covered by|that show|belonging to) {obj}
i (need|want|would like) (a|the) (mask|segmentation|outline|cutout|segmentation mask) (of|for) {obj}
= where
what are the (coordinates|box coordinates|bounding boxes|pixel coordinates) of {obj}
where exactly is {np}|where is {np}|where are {nps}
where's {np}
where can i (find|see|spot) {obj}
where do you see {obj}|where in the {scene} is {np}|where in the {scene} are {nps}
can you (see and mark|spot|point to|locate|identify|show me|find) {obj}
do you know where {np} is|tell me where {np} is|tell me where {nps} are|show me where {np} is|show me where {nps} are
i (can't|cannot|can not) find {obj}[, where (is it|are they)]
where did (i|he|she|they) (put|leave|lose|hide) {np}
(is it possible|are you able) to (locate|find|segment|spot|detect|mark) {obj}
= bare
{person} {after}|{person} {after}|{thing} {after}|{thing} {after}|{which}|{person} {act} {adverb}|{person} with {parts} {done}
{thing} {preposition} {thing}|{adj} {person}|{adj} {person} {preposition} {thing}|{person}|{part}|{adj} {part}|{adverb} {thing}
{np}|{np}|{thing} (nearest|closest|next) to (us|me|the camera|you|{np})
(left|right|top|bottom|far|near|back|front) (side|half|corner|row|end|part) [{thing}] [{after}]
{thing} in {thing}'s (hand|hands|mouth|lap)
{np}|{np}|{np}|{nps}|{nps}|{thing}|{things}|{adj} {thing}|{thing} {place}|{which}|{person} {doing}|{person} {doing}
{person} (on|at|in) (left|right|back|front|middle|far left|far right|bottom|top)
(left|right|middle|bottom|top|front|back|top left|bottom right|center) {thing}
(left|right|middle|second|closest|smaller|bigger) {person} in {color}
{thing} (on|at) [the] [very|far] (left|right|bottom|top|edge)
{ordinal} {thing} from [the] (left|right|top|bottom)
{ordinal} {person} from [the] (left|right) {doing}
{color} one|{color} {thing}
the one (on the left|on the right|in the middle|in {color}|with the {thing}|{doing})
the {thing} {after}, not the {adj} one|the {superlative} {thing} {place}|half {thing} {place}|{part} of {np}
{people} {doing}
= thing_for
(something|anything|an object|a thing|an item|a tool|the thing|the object|the item|the tool|things|all objects|objects|equipment|the device|the part|the animal|any animal) (to|i can use to|you can use to|we could use to|that helps to|that can be used to|used to|one could use to|suitable to|one needs to|people use to|needed to|with which you can) {need}
(something|anything|an object|the thing|the object|the item|the tool|things|all objects|the device|the part|the {thing}|a {thing}|the animal|the animals|food|the person|the furniture|a place|the place|a vehicle|clothes) (that|which) {use}
(something|anything) (for|against|to deal with) (a|the) {thing}
(something|anything) (to|i can) (eat|drink|wear|read|sit on|play with|ride|climb|throw|cut with|write with|sleep on|cook with|clean with|hold on to|hide behind)
(something|anything|an object|the thing|a tool|the part|things|the object) (to|i can use to|that can|that could|that will|used to|to help|with which to|i need to) {verb} {np}
(something|a thing|an object|the tool|what i need) (for|for the|against) {verb}ing {np}
(something|anything|the thing|the object|the animal|the part|things|a machine|objects) (that|which) {verbs} {things}
what (can|could|would|should|might|will|helps to|is used to|does one use to) {verb} {np}
what (can|could|should|would) (i|you|we|one|the {person}|he|she) (use|take|grab|need|choose) to {verb} {np}
what (do|would|will) (i|you|we|one) need to {verb} {np}
what {verbs} {things}
which (object|thing|tool|part|item|{thing}|animal) (can|could|should|would) (i|you|we|one) (use|take|grab|need|choose) to {verb} {np}
which (object|thing|tool|part|item|{thing}|animal|vehicle) (can|could|would|helps to|is used to|lets you|is able to) {verb} {np}
where (should|can|could|would|do) (i|you|we|one|people|the {person}) (put|place|throw|plug in|park|hang|store|hide|connect|insert|keep|find|get|buy|leave|rest|press) {np}
something (edible|drinkable|useful|wearable|readable|sweet|sharp|dangerous|alive|soft|warm|round|made of {stuff}|{adj}) [for (the|a) {person}]
the (part|piece|area|place|spot) (of|on|in) the {thing} (where you can|with which people|that lets you|used to|i should touch to|one uses to) {need}
what (can|could|would|should|might|will|does one use to|do people use to|do i use to|helps to|helps someone|allows you to|lets you|makes it possible to|would help to|is needed to|would be useful to|would be the best thing to|is best suited to|is used to) {need}
what (helps|enables|allows) (the|a) {person} (to|) {need}
what {use}
what would (i|you|we|one|someone|a {person}) (use|need|take|choose|want|grab|pick|look for|bring|require|get) to {need}
what should (i|you|we|one|someone|a {person}) (use|take|wear|eat|buy|grab|put on|press|pull|hold) (to|if i want to|when i want to) {need}
what do (i|you|we|people) (need|use|take|require) (to|in order to|when you want to|if you want to) {need}
what can (i|you|we|one|the {person}) (sit on|eat|drink|wear|read|use|play|climb|ride|sleep on|write with|cut with|cook with|put on) [to {need}]
= which_for
which (object|objects|item|thing|tool|part|animal|animals|{thing}|vehicle|food|device|of these|of these things|of the {things}|person) (can|could|would|should|might|will) (i|you|we|one|people|someone|the {person}) (use|take|need|choose|pick|wear|eat|press|hold|grab) to {need}
which (object|objects|item|thing|tool|part|animal|animals|{thing}|vehicle|food|device|of these) (can|could|would|helps to|is used to|lets you|allows people to|is best to|is suitable to|would help me) {need}
which (object|objects|item|thing|tool|part|animal|animals|{thing}|vehicle|food|furniture|clothes|of these) {use}
which (part|side|area) of the {thing} (is used to|lets you|do you touch to|helps to) {need}
where (can|could|would|should|might|do) (i|you|we|one|someone|people|the {person}) [go to] {need}
who (can|could|would) help (me|him|her|us) [to] {need}
if (i|you|we|someone|the {person}) (want|wanted|need|needed|wants|had) to {need}, (what|which object|which thing|which item|where|which part) (should|could|would|can) (i|you|we|one|they|he) (use|take|grab|go|choose|look for|press)
when (you|i|people|we) (want|need|have) to {need}, what (should|could|can|would) (you|i|they|we) (use|take|pick)
= need_first
(i|we|he|she|the {person}) (want|wants|need|needs|would like|have|has|plan|am going) to {need}(.|, so|;|:|. please|) (find|segment|locate|show me|point out|mark|where is|look for|what is) (something suitable|the right thing|what (i|we) need|something for that|the right tool|what could be used|a good object|something useful|{thing_for})
(i|we) (want|need|have) to {need}(.|,|;) (what|which object|which tool|what thing|which of these) (could|can|should|would) (i|we) (use|take|choose|pick|grab)
(it is|it's|i am|i'm|we are|the {person} is) (raining|cold|hot|dark|hungry|thirsty|tired|bored|late|sick|hurt|lost|{adj})(.|,|, so|;) (what|which object|which of these things|where) (could|can|should|would|might) (help|i use|i take|we use|i eat|i wear|be useful|i put on|i go|i sit)
(find|segment|locate|mark|show|detect|identify) (what|whatever|the thing that|the object that|the one that|the person who|the animal that|the part that) (can|could|would|might|will) [help to] {need}
(find|segment|locate|mark|show|detect) (what|whatever|the thing that|the object that|all that|everything that|the {thing} that|the animal that|the {person} who) {use}
(find|segment|locate|mark|detect|show me|point out) (the {person}|the {thing}|the animal|everyone|anyone|the one) (who|that) is {doing}
= looking
i am looking for {obj}
i'm looking for {obj}
i'm trying to find {obj}
i want to (see|find|locate|have|select|segment|detect) {obj}
i need {obj}
i (lost|misplaced|dropped|forgot) my {thing}, (can you find it|where is it|help me find it|do you see where it is)
we are searching for {obj}|help me find {obj}
(let me see|let me know) where {np} is
looking for {obj}
= pronoun
it|them|this one|that one|mine|the ones {place}|whatever is {place}|anything {adj}|someone {doing}
the person responsible
""",
    COUNTING: """
=
{many}|{many}|{many}
[{open}] {tell} {many}
{open} {tell} {many}
[{open}] {count} [{tail}]
{open} {count} [{tail}]
{total}
{total} [{tail}]
{late}|{wish} {many}
= what
{things}|{things}|{things}|{things} {after}|{things} {after}|{adj} {things}|{color} {things}|{adj} {things} {after}
{people}|{people} {doing}|people|people {doing}|of the {things}|of these {things}|of them|{things} or {things}
{things} and {things}|{parts}
(different|individual|separate|distinct|whole|single) {things}
(kinds|types|sorts|pieces|pairs|groups|rows|slices|glasses|bottles|sheets|stacks|bunches|layers) of {things}
= many
how many {what} {is_phrase}|how many {what} {verb} {np}|how many {what} {does} {np} {deed_phrase}|how many {what} {preposition} {np}
how many {what} {modal} {deed_phrase}|how many {what} {aux} {done} {adverb}|how many {what} {aux} {adverb} {act}
how many times (does|is|did|can) {np} (appear|occur|shown|repeated|{verb}|{done}) [{place}]
how many {what} are there
how many {what} are there [{tail}]
how many {what} (are|is) {doing}
how many {what} (are|is) {adj}
how many {what} (are|is|stand|lie|sit|hang|appear|remain|exist) {place}
how many {what} (can|could|do|would) (you|i|we|one) (see|spot|find|count|notice|make out|recognise|identify) [{tail}]
how many {what} (can be|could be) (seen|found|counted|spotted) [{tail}]
how many {what} does (the|this|that|a) {thing} (have|hold|carry|contain|show|need)
how many {what} do (the|these) {people} (have|hold|carry|need|wear)
how many {what} (has|have) (a|the|no) {thing}
how many {what} (wear|hold|carry|ride|face|look at|touch) (a|the) {thing}
how many {what} are (in|on|under|inside|behind|around|next to) (the|this|that) {thing}
how many {what} are (shown|visible|left|missing|present|depicted|pictured|displayed|there in total|in total|altogether) [{tail}]
how many {what}|how many {what} {tail}
in (the|this) {scene}, how many {what} (are there|do you see|can be seen|are {doing})
how many {things} in total|how many are {doing}
how many {what} (were|will be|have been|are being) {done}
how many {what} (can|will|could|did|do|would) (fit|{verb}) [{place}|{np}]
how many {what} {verb} (a|the|their) {thing}
how many {what} (has|have|did|does|do|will) {np} [{done}|{verb}|have|{verb} {np}]
how many {what} is {np} (holding|carrying|wearing|{deed}|riding|{act} with)
how many {what} (with|without|in|on|under|behind|next to|wearing|holding) {things}
how many more {things} than {things} are there|by how many {things} {place}
how many (of the {things}|of them) are {adj}
exactly how many {what} are there|roughly how many {what} are there|approximately how many {what} are {place}
= tell
tell me|tell me exactly|tell|say|find out|figure out|work out|determine|calculate|estimate|check|let me know|answer:
report|write down|guess|see|look|explain|state|show me|identify|detect|find
= wish
i want to know
i'd like to know
i would like to know|i need to know|i wonder
i'm wondering
i was wondering|do you know|can you see|any idea|could you say|would you know|we have to know
my (boss|friend|mother|teacher|son) asks
he asked me|it is important to know
= count
count {obj}|count {nps}|count {nps}
count the (number|amount) of {what}
count how many {what} there are|count how many {what} are {doing}|count up {nps}|count out {nps}|count only {nps}
count everyone {doing}|count every single {which}|do a count of {nps}|make a count of {nps}
do a headcount of the {people}|tally {nps}|tally up {nps}|add up {nps}|sum up the number of {what}|enumerate {nps}
keep count of {nps}
{say} the [total|exact|correct|overall|approximate] (number|count|total|quantity|amount|total number|sum|headcount|tally) of {what}
{say} the [total|exact] (number|count) of {what} {place}
{say} (a|one|your best) count of {nps}
{say} (a|the) number: {many}
= say
give|give me|tell me|report|return|provide|determine|calculate|compute|estimate|find|find out|get|figure out|state|say
output|name|work out|establish|show me|write|check|detect|evaluate|print
= total
what is the [total|exact|overall|approximate|current] (number|count|total|quantity|amount|sum|tally) of {what}
what's the [total|exact|overall] (number|count|total|quantity|amount|headcount) of {what}
what (number|amount|quantity) of {what} (is|are) there
what would be the (number|count) of {what}
[the] [total|exact] (number|count|amount|quantity|headcount|tally) of {what}
[the] (number|count|total) of {what} {place}
total {things}|{things} count|{thing} count
(i|we) (need|want|would like) (the|a|an exact) (number|count|total|headcount|tally) of {what}
i (need|want|would like|have) to count {nps}
are you able to count {nps}|is it possible to count {nps}|would you be able to count {nps}|number of {things}
a (head|quick|full) count of {nps}
(can|could) {nps} be counted
= late
{nps}: how many
{nps}, how many (are there|do you see|of them are there|can you count)
{nps}... how many are there
there are (some|many|several|a lot of|a few|lots of) {things} {place}(,|.|;|:) how many [exactly|are there|are there in total|do you see]
i see (some|many|several) {things}(,|.|;) (but|) how many (are there|are {adj}|exactly)
(look at|see) {nps}(.|, and|,) (count them|tell me how many there are|how many are there|how many are {adj}|count how many you see)
(find|detect|locate) {nps} and (count them|tell me how many there are|report their number|give me their number|count how many are {doing})
= pronoun
the ones {place}|them|these|those {doing}|everyone
""",
    EDITING: """
=
{whatif}|{whatif}|{style_only}
[{open}] {edit}
[{open}] {edit}
[{open}] {edit} [{tail}]
{open} {edit}|{edit}|{edit}|{edit}|{edit} and {edit}|{edit}, but keep {obj}|{edit}, then {edit}|{wished}|{wished}
{wished} [{tail}]
= edit
{away} {obj}
{away} {obj} from (the|this) {scene}
{away} {obj} from {obj}|{away} {stuff} from {obj}
{away} everything (except|but) {obj}
{swap}|{swap}|{turn}|{turn}|{add}|{add}|{make}|{make}|{make}|{tune}|{tune}|{whole}|{whole}
= away
remove|remove|delete|erase|get rid of|take out|take away|wipe out|edit out|crop out|clear away|eliminate|hide|retouch
photoshop out|cut away|drop|strip|clean up|paint over|cover up
= swap
replace {obj} (with|by) {obj}
replace {obj} (with|by) {stuff}
swap {obj} (with|for|and) {obj}
swap the (faces|heads|colours|positions|places) of {obj}
exchange {obj} (for|with) {obj}
substitute {obj} (for|with) {obj}
switch {obj} (with|to|for) {obj}
use {np} instead of {np}|put {np} in place of {np}
change {np} (to|into|for) {np}
change {np} with {np}
change the (background|sky|floor|wall|scenery|scene|setting) (to|into) (a|the) {which}
change the {attribute} of {obj} to (something {adj}|{color}|{adj})
change the colour of {obj} (to|into|from {color} to) {color}
change (his|her|its|their) {part} (colour to {color}|to {color}|into a {thing})
change what the {person} is {deed} to {np}
= turn
turn {obj} into {obj}|turn {obj} {color}
turn {obj} (around|upside down|to the left|by {number} degrees|to face the camera)
turn (the|this) {scene} into (a|an) {style}
turn (day into night|summer into winter|the day into night|the rain into snow)
transform {obj} into {obj}
transform (the|this) {scene} into (a|an) {style}
convert (the|this|it) [{scene}] (to|into) (a|an) {style}
convert {obj} (to|into) {obj}
convert (it|this|the {scene}) to (grayscale|black and white|sepia|monochrome|negative)
morph {np} into {np}
= add
add {np}
add {np} [{place}]
add {number} {things} [{place}]
add {stuff} to {np}
add some {things} (to|on|behind|around) {np}
add {np} (to|on|next to|behind|in front of|above|beside|under) {np}
add (a caption|some text|a title|a border|a watermark|a logo|a filter|a blur|a shadow|a reflection|motion blur|fog) to (the|this) {scene}
put {np} (on|in|next to|behind|under|over|onto) {np}
put (a|some|his|her) {thing} on the {person}
place {np} (on|in|next to|behind|under|in front of|between) {np}
insert {np} (into|in|between|behind) {obj}
insert {np}|include {np} in the {scene}
draw (a|some) {which} (on|in|next to|above|behind) {np}
draw {things} on {np}
paste {np} (on|onto|into) {np}
give {np} (a|an|some) {which}
give (him|her|them|it) (a|some) {which}
give {np} {adj} {part}
dress {np} (in|as) (a|an) {which}
dress (him|her|the {person}|the {person}) up as a {person}
cover {obj} (in|with) {stuff}
cover {np} with {things}|fill {np} with {stuff}|fill {np} with {things}
sprinkle {stuff} (on|over) {np}
decorate {np} with {things}
write "{thing}" on {np}
write (the word|the name|the text) {thing} on {np}
surround {np} with {things} made of {stuff}|duplicate {obj}|clone {np}
copy {np} (and paste it|next to|to the other side)
multiply {obj}
let (it|there be) (rain|snow|fog|stars|fireworks) {place}
= make
make {obj} {looks}|make {obj} {looks}|make {obj} {adj}|make {obj} look {adj}
make {obj} look (like|as if) (a|an|the) {which}
make {np} wear (a|an) {which}
make {np} (hold|carry|ride|eat|drive) (a|an) {which}
make {np} (smile|laugh|cry|jump|fly|dance|disappear|stand|sit|vanish|sleep)
make it (look like|) (night|winter|autumn|summer|spring|rainy|sunny|snowy|day|evening|christmas|sunset|a party|{adj})
make it (look like|into) (a|an) {style}
make the {scene} {looks}
make the (sky|background|floor|wall|water|grass|hair|eyes) {color}
have {np} (wear|hold|carry|ride) (a|an) {which}
let {np} (wear|hold|carry|ride|drive|be) (a|an) {which}
let {np} (smile|laugh|fly|dance|look at the camera|close the eyes|be {adj})
paint {np} {color}
paint {np} (on|over|behind) {np}
paint {np} in {color}|dye {np} {color}|color {np} {color}|colour {np} {color}
recolor {obj} [in|to] {color}
tint {obj} {color}|repaint {obj} in {color}|colorize {obj}|shrink {obj}|enlarge {obj}|stretch {obj}|lengthen {obj}
shorten {obj}|thicken {obj}|straighten {obj}|resize {obj}
scale {obj} (up|down)
move {obj} (to the left|to the right|up|down|closer|away|to the middle|{place}|next to {np}|in front of {np}|behind {np})
shift {obj} (to the left|to the right|up|down|a little|{place})
flip {obj}
rotate {obj} [by {number} degrees]
tilt {obj}|mirror {obj}|bend {np}|lower {obj}|raise {obj}
open (his|her|the {person}'s) (eyes|mouth|hands)
close (his|her|the {person}'s) (eyes|mouth)
light {np} (on fire|up)
set {np} on fire|melt {np}|break {np} into pieces|repair {obj} in the {scene}|age {np} by {number} years
= tune
(increase|decrease|raise|lower|reduce|boost|adjust|improve|enhance|fix|correct|change|tweak|bump up|turn up|turn down|double|balance|soften|strengthen|normalise) the {quality}
(increase|decrease|raise|lower|reduce|boost|adjust|improve|enhance|fix|correct) the {quality} (of|in|on) {obj}
(increase|decrease|raise|lower|reduce|boost|adjust|improve) the {quality} [of the {scene}] [by {number} percent|a bit|slightly|a lot]
(blur|sharpen|brighten|darken|lighten|smooth|soften|denoise|pixelate|desaturate|saturate|colorize|vignette|enhance|retouch|invert|fade|tint|censor|smudge) {obj}
(blur|sharpen|brighten|darken|lighten|smooth|soften|denoise|pixelate|desaturate|colorize|enhance|retouch|invert|fade|crop|rotate|flip|mirror|resize|edit|restore|straighten|upscale|rescale|compress|restyle) (the|this|my) {scene}
(blur|sharpen|brighten|darken|lighten|soften|remove|replace|fade|change|delete) the (background|foreground|sky|shadows|faces|license plates|text|watermark|edges|colours|wrinkles|red eyes|scratches|reflections)
(crop|cut|trim) (the|this) {scene} (to|so that|around|down to) (the|a) (square|{thing}|center|left half|face of the {person}|top)
(rotate|flip|turn|mirror|tilt) (the|this|it) [{scene}] (by {number} degrees|upside down|horizontally|vertically|to the left|clockwise|sideways)
zoom (in on|out of|in to|into) {np}
(resize|scale|shrink|enlarge|upscale) (the|this|it) [{scene}] (to {number} pixels|by half|to twice its size|for instagram|to a square)
apply (a|an|some) ({style}|vintage|sepia|blur|warm|cold|retro|cartoon|black and white|gaussian blur|beauty) (filter|effect|look|style) [to {obj}]
fix the {quality} of {np}|improve the {scene} quality
extend the {scene} (to the left|to the right|upwards|on both sides|beyond its edges)
outpaint (the|this) {scene}
inpaint {obj}
(smooth out|clean up|touch up|brush up|lighten up|tone down|darken a bit) {obj}
(remove|reduce|take out) the (noise|blur|haze|glare|grain|red eyes|shadows|wrinkles|scratches|stains|background|watermark)
= whole
make (it|the {scene}|this) look (like|as if|as though) {clause}|edit the {scene} so that {clause}|change it so that {clause}
the (girl|boy|man|woman|dog|cat|{thing}) (should|could|must|needs to|has to) be (a|an) {which}
{away} {thing}|{away} {stuff}|blur {stuff}|replace {thing} with {thing}|change {thing} to {thing}|add {thing}|{away} {things} {preposition} {np}
turn (on|off) {np}|close {np}|open {np}|dim the {thing}|fix {np}|clean {np}|hang {np} {preposition} {np}|wrap {np} in {np}
= whatif
what if {np} (had|was|were|wore|became|got|held|could be|looked|turned into|rode) (a {which}|{adj}|{doing}|{things}|{adj} {parts}|{np})
what if there (was|were) ({things}|a {which}) {place}|what if {np} {done} {adverb}|what if it (was|were) {adj}
(could|can|may|might) (we|i|you) (have|get|add|put|change|make|turn|give|use|see the {scene} with|include) {np} [{place}|{preposition} {np}|{adj}|to {np}]
(can|could|should) {np} (be|have|wear|become|look|hold|get|turn into|be full of|be made of) ({adj}|a {which}|{things}|{stuff}|{color})
(it|the {scene}|the weather|the time|the {thing}|{np}) (could|should|must|might as well|needs to) (be|look|have|become|show) ({adj}|raining|snowing|night|{doing}|a {which}|{things}|{color})
(have|let) there be {np} {place}|(have|let) {np} {deed_phrase}|(have|let|get) {np} {done}|let's (have|add|make|change|see|put|use|give|turn) {np} [{adj}|{place}|{preposition} {np}]
how about (adding|changing|removing|making|replacing|giving|putting|turning) {np} [{adj}|{place}|{preposition} {np}]
(maybe|perhaps) (add|change|remove|make|replace|give|put|turn) {np} [{adj}|{place}|{preposition} {np}]
= style_only
{style}|{style} style|{style} version|(as|in|like|into) (a|an) {style}|(more|less|higher|lower|better|stronger|warmer) {quality}
(no|without) ({thing}|{things}|{stuff}|background|people)|black and white|grayscale|{color} {thing} instead of {color}
{thing} (removal|replacement)|background (removal|replacement|blur|change)|(plain|white|{color}|blurred|{thing}) background
(in|with) ({name}|{adj}|{style}) style|(bigger|smaller|longer|shorter|brighter|darker|more|fewer|{adj}|{color}) {things} instead
upscale|sharpen|brighten|denoise|crop|colorize|restore|rotate|flip horizontally|mirror vertically
(upscale|resize|crop|scale|enlarge|shrink) [it|the {scene}] (to|by) ({number}|{number}k|{number}x{number}|{number} percent|square)
(redraw|render|repaint|restyle|recreate|reimagine|show|paint|draw|redo|reproduce) (the|this) {scene} (as|in the style of|like) (a|an) {style}
(redraw|render|repaint|restyle|recreate|reimagine) {obj} as (a|an|the) {which}
(redraw|render|repaint|restyle|recreate|generate|create|make|produce) (a|another|a new|one) (version|variant|copy|variation|edit) (of|of it|of this {scene}|) (with|without|where|in which) {obj} [is {adj}|is {doing}|is {looks}]
edit (the|this) {scene} (so that|such that|to|by|until) ({np} is {adj}|{np} is {doing}|{np} has a {thing}|show {obj}|have {obj}|include {obj}|removing {obj}|adding {obj}|the {person} wears a {thing})
edit {obj}
edit {obj} to (be {adj}|look {adj}|be {color}|show a {thing})
(redraw|render|repaint|restyle|make|paint|show|turn) {obj} (in the style of|like|as a painting by|into a work of|like a character from|like it was made by) {name}
(show|render|draw|restyle) (the|this) {scene} (in|with) (a|an) ({adj}|{style}|{name}) (style|look|version|mood|color scheme)
change the (text|title|name|word|number|date|writing|caption|year) [{place}|on {np}] (to|into|from {name} to) ({name}|"{name}"|'{name}')
(write|add|put|insert|print|type) (the (text|word|name|title|date) |)("{name}"|'{name}'|{name}) (on|above|below|under|across|over) {np}
(merge|blend|combine|fuse|mix) {np} (with|and|into) {np}
make (the {scene}|it|this|everything|{np}) (look|seem|feel|appear) (more|less|a bit more|much more|a little less) {adj}
make (the {scene}|it|this|everything|{np}) (a bit|a little|slightly|much|way|more|less|twice as|even) ({looks}|{adj})
{verb} {np} out of (the|this) {scene}
{verb} {np} (away|off|out|over) (with|and put|and add|using) {np}
swap out {np} (for|with) {np}
modify {obj} (so that|to|such that) ({np} is {adj}|be {adj}|be {color}|look {adj}|it looks {adj})
alter {obj}|alter the {attribute} of {obj}
photoshop {np} (into|onto|out of|next to) {np}
retouch {obj}
restore (the|this) [old|damaged|torn|faded] {scene}
create (a|an) {style} (from|out of) (the|this) {scene}
generate (a|an) {style} (of|from) (the|this) {scene}
imagine {obj} (as|with|without|in) (a|an|the) {which}
(set|put|place) the scene (in|at|on) (winter|night|the beach|a forest|paris|space|the desert|a {thing})
(set|change|put) the background (to|as) (a|an|the|plain) ({which}|{color}|{place})
= wished
i want {np} (to be|to look|to become) ({looks}|{adj}|{color})
i want {obj} (removed|erased|deleted|gone|blurred|replaced|brighter|darker|bigger|smaller|{color}|cropped out|painted {color}|turned into {np})
(i want|i would like|i'd like) {np} instead of {np}
i would like {np} (to be|to have|to wear|to hold|to become) (a|an) {which}
i'd like {obj} (removed|erased|deleted|gone|blurred|replaced|brighter|darker|bigger|{color}|turned into {np})
i'd (like|love|prefer) to (see|have) {np} (as|with|without|turned into) (a|an) {which}
(can|could|may) {obj} be (removed|erased|deleted|blurred|replaced|brightened|made {looks}|made {adj}|painted {color}|turned into {np}|changed to {np}|moved {place})
{obj} (should|must|needs to|has to|ought to) (be|become|look|turn) ({looks}|{adj}|{color}|removed|erased|replaced by {np}|blurred|gone)
{np} (should|must|needs to) (have|wear|hold|get|carry|ride) (a|an) {which}
{np} (needs|could use|deserves) (a|some|more) ({which}|{quality}|{stuff})
there should be (a|an|more|no|fewer) ({which}|{things}|{stuff}) {place}
(no|more|fewer|less) ({things}|{stuff}) {place} please
the {scene} (is|looks|seems) too (dark|bright|blurry|noisy|dull|cold|warm|red|pale|flat|small)(, |. |; | and |: )(fix it|please fix that|correct it|brighten it|change that|adjust it|improve it|can you fix that)
(show|imagine|visualise|picture|see) (me|) what {np} would look like (with|as|without|in) (a|an) {which}
what would {np} look like (with|as|without|in) (a|an) {which}(? show me|? edit it that way|. make it so|? please generate it|? change the {scene} accordingly)
do (some|a bit of|a little|an) (retouching|editing|colour correction|image editing|cleaning up) on {obj}
= pronoun
him|her|it|them|me|us|this|everything|everybody|this one|myself
""",
    QUESTION: """
=
{plain}|{plain}|{plain} [{tail}]|{plain}
{ask}|{ask}|{ask}|{ask}
{ask} [{tail}]
{ask} [{tail}]
{yesno}|{yesno}
{yesno} [{tail}]
[{open}] {imperative}
[{open}] {imperative}
{open} {imperative}
[{open}] {tell} {indirect}
{wish} {indirect}|{noun}
= ask
what is the (total|whole|average|net|final|sum|difference|ratio|maximum|price|cost) (amount|price|cost|value|area|score|revenue|height|weight|age|length|profit|{attribute}|) (in|on|of|for|to pay|due|paid|shown|between) ({np}|the (receipt|bill|chart|table|graph|invoice|menu|{thing}))
what (number|word|letter|name|page|{thing}|day|line) (comes|follows|appears|is|was|goes|belongs|stands) (after|before|next|first|last|above|under|on|in) ({np}|the {ordinal} one|the one shown|this|it|{place})
which {thing} is {adverb} {done}|which {thing} is {done} {adverb}|which {thing} is {preposition} {np}|which of the {things} is {preposition} {np}
which of (the|these|the two|them|the {number}) [{things}] (is|are|was|looks|seems|has|costs|weighs|came|got|belongs) ({comparative}|the {superlative}|more {adj}|{done}|{preposition} {np}|{adj}|{np})
(which|what) (object|thing|item|one|person|animal|part|{thing}|{person}) (is|are|lies|stands|sits|hangs) {place}
(which|what) (object|thing|item|one|person|animal|part) (is|are|lies|stands|sits|hangs) {preposition} {np}
(which|what) (object|thing|item|one|person|animal) (is|are) (to the left of|to the right of|left of|right of|on top of|above|below|beside) {np}
= plain
who {is_phrase}|who {is_phrase}|who {does} {np} {verb}|who {modal} {deed_phrase}|whose {thing} {is_phrase}|who else {is_phrase}
(where|when|why|how) {does} {np} {deed_phrase}|(where|when|why|how) {does} {np} {deed_phrase}|(where|why|how|when) {aux} {np} {done}
(where|when|why|how) {does} (i|you|we|people|they|he|she|it) {deed_phrase}|(why|when|how) {aux} {np} {doing}|(why|how) {aux} {np} {adj}
{does} {np} {deed_phrase}|{does} {np} {deed_phrase}|{aux} {np} {doing}|{aux} {np} {done}|{aux} {np} {adj}|{aux} {np} {preposition} {np}
{does} (it|they|he|she|someone|anyone|people|these|this) {deed_phrase}|{aux} (it|they|he|she|this|these) {adj}|{aux} (it|they|he) {done}
{aux} {np} {preposition} {np} {adj}|has {np} {done} {np}|have {np} {done} {adverb}|will {np} {deed_phrase}|{does} not {np} {deed_phrase}
what {does} {np} {verb}|what {does} {np} {verb} {preposition}|what {does} (he|she|it|they|you) {verb} {adverb}|what {aux} {np} {act}
what {aux} {np} {done} {preposition}|what {aux} {np} {preposition}|what {aux} {preposition} {np}|what {attribute} {aux} {np}|what {attribute} {does} {np} {verb}
which {thing} {does} {np} {verb}|which {attribute} {does} {np} {has}|what {thing} {aux} {np} {act}|what {thing} {aux} {np}|which {thing} {aux} {np} {preposition}
what kind of {thing} {aux} {np}|what kind of {thing} {does} {np} {verb}|what sort of {thing} {is_phrase}|what type of {thing} {aux} {np} {act}
how {adj} {aux} {np}|how {adj} {does} {np} {verb}|how much {stuff} {aux} {preposition} {np}|how much {does} {np} {verb}|how long {does} {np} {verb}
(what|why|how|where|who|when)|(what|who|which one) (won|lost|did it|is it|is that|happened|was it|comes next|is next|said that)
= has
have|show|use|need|like
what (is|are) {obj} (doing|made of|for|called|wearing|holding|looking at|eating|about|used for|doing {place}|carrying|thinking|saying|pointing at|covered with|standing on|waiting for|trying to do|afraid of)
what (is|are) (this|that|it|these|those|they)
what (is|are) (this|that|these) {which}
what is (happening|going on|taking place|shown|displayed|visible|depicted|written|printed|missing|unusual|special|funny|wrong|strange|hanging|standing|lying|interesting) [{place}|here|in the {scene}|on the {thing}|with {np}|about {np}]
what is (in|on|behind|under|above|below|inside|next to|in front of|around|near|beside|at the top of|to the left of|to the right of|between the {thing} and) (the|his|her|this) {thing}
what is {place}|what is the {attribute} of {obj}|what is the {attribute}
what's the {attribute} of {np}
what's {place}
what's (in|on|under|behind|next to) the {thing}
what's (happening|going on|this|that|up|wrong|new|written) [{place}|here|with {np}]
what is the {person} (doing|wearing|holding|eating|looking at|carrying|reading|saying|{deed}|riding|feeling)
what is the {person} {doing} (called|wearing|holding|doing)
what is the (main|most important|first|only|difference|relationship|connection|biggest difference) (object|subject|topic|idea|message|colour|between {np} and {np}|word|number) [here|{place}]
what is the (name|title|number|word|text|letter|date|price|logo|message) (on|of|in|above|under|written on) {np}
what {attribute} is {np}|what {attribute} are {nps}
what {attribute} (does|do|did|has) {obj} (have|use|show|wear|like|speak|need)
what (kind|type|sort|brand|make|breed|species|style|shade|piece|model|size) of {thing} is (this|that|it|shown|{np}|{doing}|{place}|the {person} {deed})
what (kind|type|sort|breed|species|brand|style|colour|kinds|types) of {things} are (these|those|they|shown|there|{place})
what (animal|food|sport|vehicle|fruit|building|city|country|room|place|event|season|year|month|day|language|word|letter|number|team|company|game|dish|holiday|instrument|holiday|flag|shape|{thing}) is (this|that|it|shown|{place}|{np}|being {adj}|it on the {thing}|the {person} {deed})
what (does|do|did|would|could|might) {obj} (say|mean|look like|do|show|suggest|represent|cost|contain|have in common|feel|want|need|weigh|stand for|tell us|have {place}|think|see|advertise|smell like|sell|offer|wear|eat)
what does (it|this|that) (say|mean|show|look like|represent|cost) [{place}|on the {thing}]
what (can|do|could) you (see|say about {np}|tell me about {np}|notice|observe|read|infer|conclude|learn|think of {np}|deduce) [{place}|here]
what can be (seen|read|found|said) [{place}|about {np}]
what (will|would|could|might|may) happen (next|if {np} {act}|to {np}|when {np} falls|after this|if it rains)
what (happened|has happened|caused this|could have happened) [to {np}|here]
what (time|day|year|season|month|number|temperature) (is it|does {np} show|is shown|is on {np}|was it|was this taken)
what (makes|made) {obj} ({adj}|look {adj}|so {adj}|special|different from {np})
(which|what) {thing} (is|are|was) (on|in|under|behind|next to|in front of|above|below|near|closest to|opposite|between|at) {np}
(which|what) (object|objects|thing|things|person|animal|item|items|people) (is|are|can be seen|lies|stands|appears|hangs|sits) (on|in|under|behind|next to|in front of|above|below|near|closest to|opposite|to the left of|to the right of|around) {np}
(which|what) {thing} (has|have|shows|had|won|sold|got|scored|wears|uses|lost) the (most|{superlative}|least|highest|lowest|largest|smallest|second highest|best) ({thing}|{things}|{attribute}|value|share|number|score)
(which|what) {thing} (does|do|did|is|was|will|would|can) {np} ({verb}|{act}|{deed}|{done}|{verb} {np}|prefer|like|look like|come from|belong to)
(in|on|at|from|to|for|with|by|of|under|during|into) (which|what) ({thing}|{attribute}|year|month|city|country|floor|page|day|street|direction|event) (is|does|did|was|are|do|has|will) {np} ({verb}|{act}|{done}|{place}|{verb} {np})
(according to|based on|judging by|looking at|from|in|given) (the|this) ({thing}|chart|table|graph|diagram|text|map|{scene}|document|bill|report|plan), {ask}
what (percentage|share|part|fraction|proportion|level|percent) of (the|) ({things}|{stuff}|{people}) (is|are|was|has|{verb}) ({adj}|{done}|{things}|{place})
what (else|exactly|do you think|on earth) (is|are|does|can be|could be) ({np} {act}|{np} {verb}|seen {place}|shown|{place}|this|it {verb})
what (would|might|could|should|will|can|did|does|do) {np} (be|say|think|mean|{verb}|{verb} {np}|{verb} next|have to {verb}|want to {verb}|like to {verb})
what is {np} (using|trying|going|about|supposed|used|able|waiting|doing) (to|it to|there to|this to) {verb} [{np}]
what is {np} using to {need}
what has {np} (just|already|) {done} [{place}]
what was {np} {done} (by|for|with|from|in)
what do (we|people|they|you|the {people}) (call|think of|say about|know about|see in|like about) {np}
(who|whom) (is|are|was|has|does|did|will|would|can|could|might|should) ({np} {deed}|{np} {act} with|{done} by {np}|{verb} {np}|{deed} {np}|{verb}|going to {verb}|likely to {verb}|about to {verb})
who {verbs} {np}
who (can|could|would|will|might) {verb} (here|{np}|in this {thing}|{place})
(where|when|why|how) (is|are|was|were) {np} ({done}|being {done}|{act}|able to {verb}|supposed to {verb}|going to {verb})
(when|why|how|where) (does|do|did|will|would|can|could|should|might|must) {np} {verb} [{np}|{place}|there|this]
(why|how|when) (do|does|did|should|would|can) (people|they|we|you|i|he|she|it) {verb} {np} [{place}|here|like this]
why (can't|shouldn't|didn't|doesn't|don't|isn't|aren't|won't) {np} {verb} [{np}]
how (do|does|did|should) (i|you|we|one|the {person}) {need}
how (many percent|often|long|soon|quickly|well|much longer|come|exactly) (does|do|did|is|has|will|can) {np} [{verb}|{verb} {np}|{done}|{adj}]
how would you (describe|call|rate|interpret|explain|summarise|title|translate|judge|characterise) {obj}
what are the (names|colours|colors|ingredients|words|numbers|differences|dimensions|main parts|values|results|steps|rules|reasons|letters|prices) (of|on|in|shown in|listed on|between) {obj}
what (stands|lies|hangs|sits|appears|remains|grows|comes) (on|under|behind|in|next to|above|to the left of|after|in front of|left of) {np}
(which|what) (colour|color|brand|team|country|company|word|number|year|city|season|language|animal|letter|day|hand|direction|sport|room|month|bar|player|floor|bus line|platform|style|breed|species|category|product|age group|side|month|item) (is|does|has|was|are|did|shows|appears|won|won|sold) ({np}|it|the highest|the most|the lowest value|written|shown|missing|played|this|mentioned|{place}|{adj}|{doing}|the largest|he using|she facing|{np} from)
which (is|one is|of them is|of the two is) {comparative}[, {np} or {np}| than {np}]
which {thing} (is|looks|was|seems) (more {adj}|the {superlative}|{adj}|{comparative})
who (is|are|was|were) {obj}
who (is|are|was) (this|that|it|he|she|they|there|{doing}|in the {scene}|the {person}|behind {np}|next to {np}|{place})
who (painted|wrote|made|took|designed|built|owns|won|invented|directed|signed|sent|drives|sells|wears|holds|lives in) (this|it|{np}|the {scene}|{np})
who (seems|looks|appears) (to be|) {adj}
whose {thing} is (this|that|it|{place}|{doing}|the {color} one)
where (was|were) (this|the) {scene} taken
where (was|is) (this|it|the {scene}) (taken|made|from|set|shot|filmed)
where (is|are) {obj} (going|from|looking|sitting|standing|heading|working|pointing|coming from|likely to be)
where (does|do|did) {obj} (come from|live|lead|go|grow|belong|take place|end)
where are (we|they|these {people})
when (was|is|did|does|will) ({np} taken|{np} built|this {scene} taken|it made|{np} leave|it happen|{np} open|the {thing} start|the {person} arrive|this|{np} due)
why (is|are|was|were) {obj} ({adj}|{doing}|{place}|there|here|important|shown|in {color})
why (does|do|did|would|might|can't|doesn't) {obj} (look {adj}|seem {adj}|have a {thing}|wear a {thing}|need a {thing}|stand {place}|laugh|cry|run|not move|fall|hold {np})
why is (this|it|there) (funny|strange|{adj}|important|a {thing} {place}|so {adj}|no {thing})
how (old|tall|big|high|long|wide|large|deep|far|fast|heavy|expensive|warm|cold|busy|full|bright|good|healthy|safe|realistic|fresh|clean|hot|sharp|popular|{adj}) (is|are|was|does|do|looks) {obj} [look|seem|probably|{place}]
how (old|tall|big|long|far|fast|expensive|warm|late|safe|{adj}) is (it|this|he|she|the {person})
how much (does|is|do|did|would|has|are) {obj} [cost|weigh|worth|left|show|earn|need]
how much {stuff} is (there|left|{place}|in {np})
how (is|are|was) {obj} ({doing}|feeling|arranged|dressed|made|used|connected|called|moving|positioned|cooked|decorated|lit|related to {np}|different from {np}|powered|going to move)
how (does|do|did|can|could|would|should) {obj} (work|look|feel|move|react|get there|open|compare to {np}|differ from {np}|taste|seem|relate to {np}|fly|end)
how (did|do|can|could|should|would) (i|you|he|she|they|we|one|the {person}) (get there|do that|make {np}|use {np}|describe {np}|call {np}|cook {np}|open {np}|fix {np}|read {np}|pronounce this|know that {np} is {adj})
how (is|was) the (weather|mood|atmosphere|light|traffic|view|quality|food|team|road)
= comparative
bigger|smaller|taller|shorter|longer|older|younger|faster|heavier|closer|brighter|more expensive|cheaper|more {adj}
= yesno
is {np} {adj}|is {np} {doing}|is {np} {place}
is {np} (a|an) {which}
is {np} (on|in|under|behind|next to|in front of|left of|to the right of) {np}
is {np} (bigger|smaller|taller|older|younger|closer|heavier|more {adj}|darker) than {np}
is {np} {adj} or {adj}
is {np} ({color} or {color}|open or closed|on or off|male or female|real or fake|alive or dead|sitting or standing|full or empty)
is (it|this|that) (a|an) {which}
is (it|this) (a|an) {thing} or (a|an) {thing}
is (it|this) ({adj}|raining|snowing|sunny|day or night|summer or winter|safe|true|real|possible|a {scene} of {things}|taken indoors or outdoors|legal|indoors|daytime|cloudy)
is there (a|an|any|some|one|another|something|anything|anyone|more than one) {which}
is there ({stuff}|any {stuff}|anything {adj}|anyone {doing}|something {place}|somebody {doing}|any text|a {thing})
is (anyone|anybody|someone|everyone|everybody|nobody|something|he|she) ({doing}|{adj}|{place})
are {nps} {adj}|are {nps} {doing}|are {nps} {place}
are (they|these|those|both {things}|the two {people}) ({adj}|{things}|{doing}|the same {attribute}|related|real)
are there (any|some|no|more|{number}|only {number}|enough|more {things} than|other|many) {things}
are there (any|some|more|people) {doing}
was (this|the) {scene} taken (in {place}|at night|in summer|by a {person}|{place}|recently|with a {thing}|from above)
was {np} ({adj}|{doing}|there)
does {np} (have|wear|hold|contain|need|show|include|like|own|carry|use) (a|an|any) {which}
does {np} (look|seem|appear|feel|taste) {adj}
does {np} (work|move|fit|match {np}|belong to {np}|touch {np}|fly|face left|swim|sell {things}|accept cards)
does (this|the) {scene} (show|contain|include|feature|depict|have) (a|any|some) {which}
does (this|it|that) (look|seem|feel) {adj}
do {nps} (look|seem|have|match|touch|wear {things}|belong together|need {stuff}|look {adj}|have a {thing}|have the same {attribute}|fly)
do you (see|recognise|recognize|know|like|notice|think it is {adj}|think {np} is {adj}|spot) [a|any|this] {which}
do you (know who this is|know what this is|see anything {adj}|see anyone {doing}|understand it)
did {np} (win|fall|break|{act}|already leave|score|finish|see {np})
can {np} (fly|swim|see {np}|be {adj}|fit in {np}|reach {np}|hear us|open {np}|drive|pass|move|bite)
can (you|we|i|one|people) (see|read|hear|park|eat|smoke|swim|enter|recognise|trust|buy|drive) [here|{np}|any {things}|in {np}|on {np}|the {thing}]
could (this|it|{np}) be (a|an) {which}
could (this|it|{np}) be {adj}
would (you|it|{np}) (say|like|need|fit|be {adj}|eat|recommend|break) [{np}|this is {adj}|in {np}]
will {np} (fall|win|fit|break|rain|arrive|stop|be {adj}|{act}|need {np}|survive)
has {np} (been {adj}|a {thing}|finished|left|arrived|fallen|eaten|already {act}|any {things})
have {nps} (been {adj}|finished|left|arrived|fallen|eaten|any {things})
should (i|we|he|the {person}|{np}) (be worried|stop|wait|turn left|eat this|be {adj}|wear a {thing}|cross|buy it)
isn't {np} {adj}
(is|was|are|were) {np} {done} [by {np}|{place}|with {things}|for {things}]
(is|are) {np} (about|going|able|allowed|ready|trying|likely|supposed|safe|easy|enough|needed|used) to ({verb}|{verb} {np}|{need})
(is|was) it (possible|safe|allowed|necessary|dangerous|better|legal|ok|too late|too early|cheaper) to ({verb}|{verb} {np}|{need}) [here|{place}]
(do|does|did|can|could|will|would|should|must|may|might) {np} {verb} [{np}|{place}|here|with {things}|each other|at all]
(has|have|had) {np} (ever|already|just|been|not|) {done} [{np}|{place}|by {np}]
(do|did|are|were|have) (these|those|both|the|the two|the three|all) {things} (match|look {adj}|belong to {np}|{done}|{verb} {np}|the same|identical|share a {thing}|{adj}|{act})
(is|are|does|can|could) (someone|anyone|anybody|somebody|nobody|anything|something|everyone) ({adj}|{act}|{doing}|{verb}|{verb} {np}|{done}|wrong)
{np} is {adj}, right|{np} is {adj}, true or false|true or false: {np} is {adj}|yes or no: is {np} {adj}
= imperative
(generate|create|write|produce|provide|make|give me|suggest|add) [a|an|the|some|good] (alt text|description|caption|captions|title|summary|text description|story|explanation|short text|headline|hashtags) [please|for it|for {np}|of {np}|about {np}|for this {scene}]
(generate|create|write|produce|provide|give me) (a|an|one) (very |rather |) (short|long|{adj}|detailed|precise) (description|caption|summary|story|poem|title|explanation) of {np}
(describe|explain|summarise|summarize|interpret|translate|transcribe|read) {np}
(describe|explain|summarise|summarize|caption|interpret|analyse|analyze|discuss|characterise|comment on|review|critique|title|rate) (the|this|my) [whole] {scene} [in detail|briefly|in one sentence|in a few words|in {number} words|for a blind person|shortly|as a poem|to me]
(describe|explain|characterise|discuss|compare|analyse|comment on|summarise|elaborate on|describe in detail) {obj} [in detail|briefly|in one sentence|in a few words]
describe (what|how|where|who|why) ({obj} is {doing}|you see|is happening|is going on|{np} looks|{np} feels|{np} is {doing})
describe the (scene|mood|atmosphere|style|weather|situation|setting|composition|relationship|action|background|colours|lighting|emotions|{attribute} of {np}|appearance of {np}|expression on the {person}'s face)
(write|give|give me|generate|create|compose|make|suggest|provide|produce|come up with|invent|think of|propose|draft|offer) (a|an|one|some|the|another) [short|long|funny|detailed|one-line|brief|good|catchy|poetic|alternative|sad] (caption|captions|description|title|summary|headline|poem|story|haiku|name|alt text|hashtag|slogan|joke|tweet|explanation|review|paragraph|sentence|overview|tagline|post) [for|of|about|to|on|describing|from|based on] (the|this) {scene}
(write|give me|compose|suggest|create) (a|an) (caption|title|poem|story|description|joke|summary|name|sentence) (for|about|of) {obj}
(write|give|create|come up with|make) [me] (a|an) [short|long|funny|detailed] (caption|description|summary|title|story)
caption (this|it|the {scene})
tell me (a story|more|something|everything|what you know|a fact|a joke|anything interesting|all) (about|of|on) {obj}
tell (a story|me a story) about (this|the) {scene}
(name|list|enumerate in words|mention|state|say) (the|all|all the|some|every|three) ({things}|objects|colours|animals|words|names|ingredients|brands|items|people|{attribute} of {np}|things) [you see|shown|in this {scene}|{place}|in alphabetical order|that are mentioned]
(name|state|give|say|guess|estimate|identify|determine|recognise|specify|judge|infer|tell me|read out|work out|predict) [me] the {attribute} (of|on|for) {obj}
(name|state|give|guess|estimate|identify|determine|tell me|find out) the (type|kind|breed|species|brand|style|colour|name|make|model|age|author|location|artist|country) of (this|that|these|the) {which}
(read|transcribe|translate|type out|spell|spell out|read out|copy out|summarise|ocr|recognise|decipher) (the|this|all|any|all the) (text|words|writing|sign|label|letter|title|headline|menu|note|handwriting|numbers|license plate|{thing}|first line|last sentence|poster) [to me|aloud|{place}|on {np}|into (english|german|french|spanish)|in {np}|for me]
read what (is written|it says|{np} says) [{place}|on {np}]
(translate|convert) (what is written|the {thing}|this text|it) (to|into) (english|german|french|spanish|chinese|italian)
(compare|contrast) {np} (and|with|to) {np}
(explain|tell me|say|describe|discuss) (the difference|differences|the relationship|the connection|similarities) between {np} and {np}
(explain|clarify) (why|how|what|the meaning of|the joke|the purpose of) ({np} is {adj}|{np} is {doing}|{np}|this|this works|it means|{np} does that)
(solve|answer|complete|evaluate|check) (this|the) (equation|puzzle|riddle|question|exercise|problem|sentence|quiz|crossword|homework|test) [{place}|shown|on {np}|step by step]
(guess|estimate|predict|judge|assess) (how (old|tall|big|long|expensive|heavy) {np} is|what happens next|where this is|who will win|what {np} costs|the {attribute} of {np}|who this is)
answer (this|the|my|a) question(: |, |. ){ask}
answer (with yes or no|in one word|briefly|honestly|shortly)(: |, |. )({yesno}|{ask})
(say|tell me) (yes or no|in one word|in a sentence|briefly)[:|,] {ask}
= tell
tell me|say|explain|describe|explain to me|let me know|find out|figure out|guess|check|determine|decide|tell us|see
verify|please say|identify|work out|report
= wish
i want to know
i'd like to know
i would like to know|i need to know|i wonder
i'm wondering
i am curious|do you know|can you tell|could you tell me|can you say|could you explain|any idea|i have no idea
i don't understand
i can't tell
my (son|daughter|friend|boss|teacher) asks
tell me honestly|please tell me|are you able to say
= indirect
what {np} is (doing|made of|for|called|wearing|holding|looking at|about)
what (is|that is|this is|these are|it is|it says|they are|{place}|happened|you see|is {place})
what {np} (says|means|shows|looks like|costs|wants|does|represents|contains)
what {attribute} {np} (is|has)
what {attribute} {nps} (are|have)
what (kind|type|sort|breed|brand|species) of {thing} (this|it|that) is
what the {attribute} of {np} is|what is the {attribute} of {np}
what is (written|happening|shown|printed|going on|missing|unusual) [{place}|on {np}|here]
who (this|that|he|she|the {person} {place}|it) is
who is {doing}
(what|who|which {thing}|how|why|when|where) {np} (will|can|should|would|might|did|could|has to|wants to) {verb} [{np}]
(what|which {thing}|how|why|when|where|whether|if) {np} (was|is|has been|were|are) {done}
(what|which) ({thing}|{attribute}) {np} {verbs}
how to {verb} {np}
what to {verb} (here|next|{place}|with {np})
what (will|might|could|would) happen (next|to {np}|if {np} {verbs}|later)
(if|whether) {np} (can|will|could|should|did|does) {verb} [{np}]
(if|whether) (anyone|someone|anything|somebody|everyone) is ({adj}|{doing}|{done})
who (painted|wrote|made|took|owns|won) (this|it|{np})
whose {thing} (this|that|it) is
why {np} is ({adj}|{doing}|{place})
why {nps} are ({adj}|{doing}|{place})
how (old|tall|big|high|long|far|fast|expensive|much|heavy) {np} (is|costs|looks|weighs)
how {np} (works|looks|feels|is made|got there|is used|is called)
how the (weather|mood|food|road|light) is
(if|whether) {np} is {adj}
(if|whether) {np} is {doing}
(if|whether) {np} is (a|an) {which}
(if|whether) there (is|are) (a|any|some) ({thing}|{things}|{stuff}|{which})
(if|whether) (it|this) is ({adj}|raining|a {thing}|safe|a {thing} or a {thing})
(if|whether) {np} (has|wears|holds|needs) (a|any) {which}
where (this|the) {scene} was taken
where {np} (is going|comes from|lives|leads|is from|is looking)
when (this|it|the {scene}) was (taken|made|built)
which {attribute} {np} has
which (team|country|company|brand|city|season|word) (it|this|{np}) is
= noun
(caption|description|summary|title|alt text|short description|explanation|transcription|detailed caption|story) (please|for this {scene}|of this {scene}|of the {scene}|in one sentence|of {np}|about {np})
(colour|color|name|brand|age|price|meaning|type|breed|species|purpose|height|title|author|material) of {np}
the {attribute} of {np}
{obj}: (what is it|what does it say|what are they doing|is it {adj}|who is it|what {attribute}|why {adj}|what is happening|describe it)
{np}, what is (it|it called|it for|that|its {attribute}|he doing|she wearing)
(any|your) (thoughts|idea|ideas|comments|opinion|guess) (on|about) {obj}
ocr of {np}
(the|) ({superlative}|total|average|final|highest|lowest|exact) ({attribute}|value|price|score|date|percentage) (of|in|on|for) {np}
tl;dr of (this|the) {scene}
a (short|long|funny|detailed) (caption|description|story|summary|poem) (about|of|for) (this|the) {scene}
= pronoun
he|she|it|they|this|that|these|this one|he|she
""",
}
