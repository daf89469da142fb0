"""Words of grammar and of letters to a company in other languages than English, and of things, which nobody is called.

The name model was trained on English: of other languages it takes whole phrases for names ("Guten Tag, hier ist Jörg").
Where such words stand at the edges of what it found, they are no part of it.
"""

from __future__ import annotations

from functools import lru_cache

from privacy.gazetteer import fold, gazetteer
from privacy.wordlists import words

_GERMAN = words("""
    ab abend aber absatz alle allem alles als also am an anbei anfrage anruf anschrift ansprechpartner auch auf aus
    bei beim bereits besten betrag bin bis bitte brauche da dabei damit dank danke dann das dass dein deine dem
    dennoch des dich die dies diese diesem diesen dieser dieses dir doch dort durch ein eine einem einen einer eines
    er einkauf erreichbar es euch euer fragen freundliche freundlichen frist für ganz geboren gekündigt gern gerne
    gerät gestern gibt gilt gruß grüße grüßen guten habe haben hallo handynummer hat hatte heisse heiße heißt heute
    hier hiermit ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in ins ist jetzt kann kapitel kein keine keinen
    konto kontonummer kunde kundennr kundennummer können könnten lautet leider leiter lesen liebe lieber mein meine
    meinem meinen meiner mfg mich mir mit moin morgen muss möchte nach nachname name namens nicht noch nur ob oder
    ohne postleitzahl rechnung rechnungsnummer schon sehr seit sich sie sind sofort sowie steuer tag tarif telefon
    telefonnummer um und uns unser unsere unserem unserer unter vertrag vertragsnummer vertrieb viele vielen vom vor
    vorname wann war waren warum was weg wegen weil weiterhin welche wenn wer werde werden wie wieder will wir wird
    wo wohne wohnhaft wohnt wurde wurden zahlung zum zur zurück zwischen zählernummer über
    """)
_FRENCH = words("""
    abonnement adresse afin ai aimerais ainsi alors appelez appelle après as au aucun aussi autre aux avec avez
    avoir avons bonjour bonsoir car carte ce ceci cela celle celui cependant ces cet cette chez client comme comment
    compte compteur contrat cordialement dans depuis des donc dont dès elle elles en encore enfin est et facture
    faire fait fois habite ici il ils je jusqu jusque leur leurs lors lui ma mais mars me merci mes moi moins mon
    monsieur naissance ne ni nom nos notre nous numéro né née on ont ou où par parce pas pendant peut plus plutôt
    pour pourquoi prénom puis quand que quel quelle qui quoi rappeler rappelez relevé réunion sa salle sans sauf se
    ses seulement si sinon son sont sous suis sur sécu sécurité ta te tel tes toi ton toujours tous tout toute trop
    très tu téléphone un une vers veuillez vient voici voilà vos votre vous y étais été êtes être
    """)
_SPANISH = words("""
    además adjunto ahora al algo alguna algún antes aquí así atentamente aunque ayer bien buenas buenos cada celular
    cliente como con contigo contra contrato correo cual cuando cuenta cuánto desde dirección donde día días ella
    ellos en entre era eres es esa ese eso esta estaba estado este esto estos estoy está están factura fecha fue
    fueron gracias había hace hacia hasta hay hola hoy igual incluso la las le les llama llamar llamarme llame llamo
    lo los luego me mi mis mucho muy más móvil nació nací nada ni no nombre nos nosotros nuestra nuestro nunca
    número o otra otro para pero poco por porque puede pueden puedes pues que queda quien quiero qué recibo saludos
    se según ser siempre sin sino sobre somos soy su sus sí también tan tanto tarde telefono teléfono tengo tiene
    todo todos tras tú un una unas unos usted ustedes vive vivo y ya yo él
    """)
_ITALIAN = words("""
    abita abito alla alle allo anche ancora anno basata bolletta buonasera buongiorno che chi chiamo ci ciao cliente
    codice cognome come con contatto conto contratto cosa cui dal dalla data degli dei del della delle dello di
    distinti dopo dove e ed era fa fattura fiscale già gli grazie ha hanno ho il in indirizzo intanto invece io la
    le lei li lo loro lui ma me mi mie miei mio molto nata nato ne negli nei nel nella nelle noi nome non nostra
    nostro numero o oggi ogni ora paga per perché più poi prego pure qualche quale quando quello questa questo qui
    saluti salve se sei senza si sia siamo sono sopra sotto sta stata stato stima su sua sue sul sulla suo telefono
    ti tra tu tua tuo tutti tutto un una uno vi vive voi vorrei vostra vostro è
    """)
_DUTCH = words("""
    aan achternaam adres al alle als altijd ben bent beste betalen bij binnen dag dagen dan dat de deze die dit doen
    door dus een en er factuur geboren geen goedemiddag goedemorgen groet groeten had hallo heb hebben heeft heet
    het hier hij hoe hoi hun ik in is ja je jij jou jouw kan klant kunnen maand maar me meer met mij mijn moet na
    naam naar niet nog nu nummer of om omdat onder ons onze ook op over rekening rekeningnummer te telefoon
    telefoonnummer tot u uit uw van veel verstuurd voor vriendelijke waar wanneer want waren was wat we werd wij wil
    wonen woon woont worden wordt zal ze zeer zich zijn zo zonder
    """)
_PORTUGUESE = words("""
    agora ainda ao aos apartamento atenciosamente até boa bom cartão chama chamo cliente com como conta contrato
    cumprimentos da das data de depois dia do dos e ela ele em endereço entre era essa esse esta estar este estou
    está eu fatura favor foi fui há isso já lhe mais mas me meu meus minha minhas morada moro muito na nas nem no
    nome nos nossa nosso não nós número o obrigada obrigado olá onde ou para pela pelo por porque preciso quando que
    quem se sem ser seu seus sim sobre sou sua suas só também telefone telefônico telemóvel tem tenho tudo um uma
    você vocês é
    """)
_OTHERS = words("""
    adres adresim adressen adım ahoj benim bir bor bydlím cześć den dobry dobrý dzień dziękuję děkuji er faktura fra
    från hei hej hejsan heter hilsen hälsningar ikke ile imię inte için jag jeg jest jestem jmenuji jmenuju kimlik
    konto mam med merhaba mieszkam mitt moja moje mój na namn navn nazwisko nazywam nie numaram numer och oddzwonić
    og personnummer pozdravem pozdrawiam proszę på rodné räkning saygılarımla se się soyadım tack tak takk telefon
    telefonum teşekkürler umowa ve vänliga witam zadzwonić är číslo адрес в день добрый живу зовут здравствуйте и
    меня мне мой моя мою на не номер пожалуйста с спасибо телефон у это я
    """)
# Of payments, of what is installed and of the heads of mails: in the lists of names, or taken for one by the model.
THINGS = words("""
    bic esim grafana gunicorn hadoop iban jira klarna kotlin kubernetes nginx paypal postgres postgresql sepa sku
    terraform
    fri tue wed
    """)


@lru_cache(maxsize=1)
def foreign_words() -> frozenset[str]:
    """The words, folded, without those that people are called by or that belong to names ("de", "van"); and things."""
    lists = gazetteer()
    every = {fold(word) for word in (*_GERMAN, *_FRENCH, *_SPANISH, *_ITALIAN, *_DUTCH, *_PORTUGUESE, *_OTHERS)}
    return frozenset(every - _PARTS_OF_NAMES - lists.first - lists.last) | frozenset(THINGS)


_PARTS_OF_NAMES = frozenset(
    words(
        "a al av bin da das de dei del della den der des di do dos du e el en la las le los na of son te u van von y zu"
    )
)


def is_foreign(word: str) -> bool:
    """Whether a word is one of another language that is no part of a name."""
    return fold(word) in foreign_words()
